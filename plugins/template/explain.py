import sys

import mmattrib as mm

first, second, out = sys.argv[1:]
found = mm.attribute(mm.load_backbone("template"), image=first, inputs={"image_2": second})
print(found["image"].scores.shape, found.save(out))
