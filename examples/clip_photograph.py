import mmattrib as mm

clip = mm.load_backbone("clip")  # openai/clip-vit-base-patch32: 600 MB, fetched once
ex = mm.attribute(clip, image="photo.jpg", text="a dog in the park")
print(ex["image"].scores.shape, f"similarity {ex.similarity:.2f}")  # bits, a score per pixel
ex.save("heatmap.png")  # or .html: a page with both maps
