"""Checkpoints of transformers, from a folder or the hub: found, and loaded whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch

from mmattrib.errors import OptionError, WeightsError
from mmattrib.files import is_file, is_folder
from mmattrib.models.bounds import UNSEEN, bounded, check_sizes, held_in
from mmattrib.models.weights import (
    check_finite,
    check_keys,
    explain,
    hub_reachable,
    parse_device,
    parse_dtype,
    unreachable,
)


def position_ids(name: str) -> bool:
    """Position numbers, which old releases wrote into checkpoints and which hold nothing."""
    return name.endswith("position_ids")


class Pretrained:
    """One checkpoint of transformers.

    Code that a checkpoint brings along is never run, and nobody is asked whether to run it. Without
    a network the local cache is used::

        found = Pretrained("laion/clap-htsat-unfused", revision=None)
        found.config(["clap"])                        # another family is refused
        model = found.model("ClapModel", "cpu", "float32")
        processor = found.part("ClapProcessor", "its processor")

    Attributes:
        checkpoint: as it was given.
        source: the folder, or the hub's id.
    """

    def __init__(self, checkpoint: str | Path, revision: str | None = None) -> None:
        """Find it.

        Args:
            checkpoint: a folder that ``save_pretrained`` wrote, or a hub id such as
                ``"openai/clip-vit-base-patch32"``.
            revision: a branch, tag or commit of the hub repository.

        Raises:
            WeightsError: it looks like a path, and there is no such folder.
            OptionError: a revision of a folder.
        """
        self.checkpoint, self.revision = str(checkpoint), revision
        path = Path(self.checkpoint).expanduser()
        self.local = is_folder(path)
        self.options: dict[str, Any] = {"trust_remote_code": False}
        if self.local:
            if revision is not None:
                raise OptionError(
                    f"revision={revision!r} was given with the folder {path}; a folder has no "
                    "revisions, leave it out"
                )
            self.source = str(path)
            self.options["local_files_only"] = True
            return
        name = self.checkpoint
        if name.startswith(("/", ".", "~", "\\")) or name.count("/") > 1 or is_file(path):
            raise WeightsError(
                f"{name} is not a folder; accepted: a folder that save_pretrained wrote, or a hub "
                "id such as 'openai/clip-vit-base-patch32'"
            )
        self.source = name
        self.options["local_files_only"] = not hub_reachable()
        if revision is not None:
            self.options["revision"] = revision

    def config(self, families: Collection[str] | None = None, hint: str = "") -> Any:
        """Its configuration.

        Args:
            families: the ``model_type`` that are accepted; any if None.
            hint: what to do about another one.

        Raises:
            WeightsError: not to be had, of another family, or with sizes that no model has.
        """
        self._check_described()  # before it is opened: reading alone makes a label per class
        config = self.part("AutoConfig")
        check_sizes(self.checkpoint, config.to_dict())
        kind = getattr(config, "model_type", None)
        if families is not None and kind not in families:
            raise WeightsError(
                f"{self.checkpoint} is a {kind!r} model; accepted: {', '.join(families)}"
                f"{f'. {hint}' if hint else ''}"
            )
        return config

    def model(
        self,
        kind: str,
        device: str = "cpu",
        dtype: str = "float32",
        spare: Callable[[str], bool] = position_ids,
        **options: Any,
    ) -> Any:
        """The model in evaluation mode, with every weight from the checkpoint.

        Args:
            kind: a class of transformers, e.g. ``"ClapModel"`` or ``"AutoModel"``.
            device: where to put it.
            dtype: ``"float32"``, ``"bfloat16"`` or ``"float16"``.
            spare: (name of a weight that the model has no place for) -> whether that is no fault,
                e.g. a head for pretraining.
            **options: of ``from_pretrained``, e.g. ``config=``.

        Raises:
            OptionError: no such device or dtype.
            WeightsError: not to be had, damaged, with code in it, with a configuration of more
                weights than it holds, with weights missing, left over, of another shape, or not
                finite.
        """
        place, precision = parse_device(device), parse_dtype(dtype)
        self._check_described()
        with bounded(self.checkpoint, held_in(self.source) if self.local else UNSEEN):
            made, info = self.part(
                kind,
                dtype=precision,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                **options,
            )
        check_keys(
            self.checkpoint,
            f"a {type(made).__name__} of its own configuration",
            missing=_names(info.get("missing_keys")),
            unexpected=[n for n in _names(info.get("unexpected_keys")) if not spare(n)],
            mismatched=_names(info.get("mismatched_keys")),
        )
        check_finite(self.checkpoint, dict(made.named_parameters()))
        return made.to(place).eval()

    def part(self, kind: str, what: str = "", **options: Any) -> Any:
        """Anything of it: a configuration, a processor, a tokenizer.

        Args:
            kind: a class of transformers, e.g. ``"AutoProcessor"``.
            what: how messages call it; the checkpoint itself if empty.
            **options: of ``from_pretrained``.

        Raises:
            WeightsError: not to be had, damaged, or with code in it.
        """
        import transformers

        with torch.inference_mode(False):
            try:
                return getattr(transformers, kind).from_pretrained(
                    self.source, **{**self.options, **options}
                )
            except Exception as error:  # transformers, the hub and the readers each raise their own
                raise self._explained(error, f"{what}: " if what else "") from error

    @property
    def commit(self) -> str | None:
        """The commit of a hub checkpoint, as the cache has it; None for a folder."""
        if self.local:
            return None
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(self.source, "config.json", revision=self.revision)
        return Path(found).parent.name if isinstance(found, str) else None

    def _check_described(self) -> None:
        """Refuse a folder whose config.json holds sizes that no model has."""
        path = Path(self.source) / "config.json"
        if not (self.local and is_file(path)):
            return
        try:
            described = json.loads(path.read_text("utf-8"))
        except ValueError:
            return  # transformers says what is wrong with it
        check_sizes(path, described)

    def _explained(self, error: Exception, what: str) -> WeightsError:
        """One of the many errors of ``from_pretrained``, as ours."""
        text = " ".join(str(error).split())
        if "trust_remote_code" in text or "custom code" in text:
            return WeightsError(
                f"{what}{self.source} brings code of its own, which is not run; accepted: "
                "checkpoints of architectures that transformers itself has. Load the model where "
                "you trust it, and write encoders for it (docs/plugins.md)"
            )
        if not self.local and self.options["local_files_only"]:
            return unreachable(self.checkpoint)
        if not self.local and "revision" in self.options and "identifier" in text:
            return WeightsError(
                f"{self.checkpoint} has no revision {self.revision!r}; give a branch, tag or "
                "commit of that repository"
            )
        if not self.local and any(sign in text for sign in ("not a valid model", "404", "401")):
            return WeightsError(
                f"the hub has no model {self.checkpoint!r} that may be read; check the spelling, "
                "and log in with `hf auth login` if it is gated or private"
            )
        if self.local and ("no file named" in text or "does not appear to have" in text):
            return WeightsError(
                f"{what}{self.source} is not complete ({text[:160]}); accepted: a folder with the "
                "model's and the processor's files, as both save_pretrained methods write them"
            )
        return explain(error, f"{what}{self.checkpoint}" if what else self.source)


def _names(keys: Any) -> list[str]:
    return [str(key[0]) if isinstance(key, tuple) else str(key) for key in keys or ()]
