import mmattrib as mm

tiny = mm.load_backbone("tiny")
scene = mm.scenes(1, seed=3)[0]  # a picture, a sound and a caption that share one thing

ex = mm.attribute(tiny, image=scene.image, audio=(scene.audio, scene.sample_rate))
ex["image"].scores  # (96, 96) float32, bits per token
ex["audio"].scores  # (64, 128) float32: mel band, frame
ex["audio"].axes  # in Hz and in seconds
print(f"similarity {ex.similarity:.2f}, weights {ex.provenance['weights_sha256'][:8]}")
ex.save("report.html")  # also .png, .npz and .json; mm.load reads the last two back

ex = mm.attribute(tiny, image=scene.image, text=scene.caption)
for word, bits in zip(ex["text"].words, ex["text"].scores, strict=True):
    print(f"{word.text:12} {bits:8.1f} bits")

pairs = [{"image": scene.image, "text": scene.caption} for scene in mm.scenes(4)]
for ex in mm.attribute_many(tiny, pairs, batch_size=2):  # the same maps as one by one
    print(f"{ex.similarity:.2f}", ex["text"].words[ex["text"].scores.argmax()].text)

found = mm.evaluate(tiny, mm.load_dataset("scenes", n=4), methods=["nib", "random"])
print(found.table())
