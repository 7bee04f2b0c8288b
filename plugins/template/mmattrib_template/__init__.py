from mmattrib import hookimpl


def load(width=64):
    from mmattrib_template.model import ImageEncoder, mm

    return mm.Backbone({"image": ImageEncoder(width)}, "template")


@hookimpl
def register_backbones(register):
    register("template", load, summary="One line about it.", modalities=["image"])
