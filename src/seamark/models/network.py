"""Vectors of texts from a language model: sentence-transformers and transformers encoders, read with transformers alone.

Conventions
-----------
An encoder is a folder: a path, or the snapshot of a hub name. A sentence-transformers folder says in modules.json how token
vectors become one vector per text; any other folder is pooled by the mean. Only safetensors weights are read and no code of the
folder is run. Vectors are float32; a text's vector depends on what else is in its batch by rounding alone (about 1e-7).

Vectors are kept on disk, so that the second run of a study encodes nothing. The store of one encoder is a folder of segments,
each written once under the digest of its content and then renamed into place: processes never see half a segment nor
overwrite each other's, and what cannot be read is dropped and computed again.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import tempfile
import threading
import warnings
import zipfile
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seamark.errors import InvalidSetting, MissingExtra, UnreadableSource
from seamark.progress import part_of_progress, tell

_SEGMENT = 4096
"""Texts encoded between two writes to the store: what a killed run can lose."""

_SMALL_SEGMENTS = 32
"""So many segments of less than half that are merged, so that many calls with few texts do not leave many files."""

_TOKENS = 16_384
"""Tokens per batch, padding included."""

_LONGEST = 512
"""Tokens read of a text where neither the folder nor the model says how many."""

_POOLING = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""Keys of 1_Pooling/config.json to the names newer versions write, in the order in which they are put side by side."""

_READ = ("*.json", "*.txt", "*.model", "*.jinja", "*.safetensors")
"""What is downloaded and fingerprinted of a model: no pickled weights, no code."""


def encode_texts(name: str, texts: Sequence[str], *, keep: bool = True) -> NDArray[np.float32]:
    """One vector per text, (n, d), each distinct text encoded once.

    Parameters
    ----------
    name : a folder, or a name on the Hugging Face hub; downloaded once if it is not there yet.
    keep : read and write the store under SEAMARK_CACHE or ~/.cache/seamark. Without it nothing is written, which suits texts that
        do not come again, such as the samples of a policy in training.

    Raises
    ------
    MissingExtra
        Without transformers.
    UnreadableSource
        If there is no such model, or it is not one that this can run as its authors do.
    """
    encoder = _open(name)
    if not texts:
        return _loaded(encoder).encode([""])[:0]
    return stored(encoder.fingerprint, texts, lambda part: _loaded(encoder).encode(part), keep=keep)


def stored(
    fingerprint: str, texts: Sequence[str], encode: Callable[[Sequence[str]], NDArray[np.float32]], *, keep: bool
) -> NDArray[np.float32]:
    """(n, d) vectors of texts, n >= 1, each distinct text encoded once and looked up under the encoder's fingerprint first, if `keep`."""
    digests = [hashlib.sha256(t.encode("utf-8", "surrogatepass")).digest() for t in texts]
    distinct = dict(zip(digests, texts, strict=True))
    store = _Store(_cache_folder() / fingerprint)
    found = store.read(distinct) if keep else {}
    wanted = [digest for digest in distinct if digest not in found]
    for start in range(0, len(wanted), _SEGMENT):
        part = wanted[start : start + _SEGMENT]
        with part_of_progress(start / len(wanted), (start + len(part)) / len(wanted)):
            vectors = encode([distinct[digest] for digest in part])
        if keep:
            store.write(part, vectors)
        found.update(zip(part, vectors, strict=True))
    return np.stack([found[digest] for digest in digests])


def encoder_fingerprint(name: str) -> str:
    """SHA-256 of all that decides the encoder's vectors: weights, tokeniser, pooling, length. Equal for a folder and its copies."""
    return _open(name).fingerprint


def reads_conversations(name: str) -> bool:
    """Whether a folder or hub name holds a language model or reward model, which reads a response in its prompt, rather than an encoder of
    texts."""
    folder = model_folder(name)
    if (folder / "modules.json").is_file() or not (folder / "config.json").is_file():
        return False
    architectures = _json(name, folder / "config.json").get("architectures") or []
    return any(str(a).endswith(("ForSequenceClassification", "ForCausalLM", "LMHeadModel")) for a in architectures)


def model_folder(name: str) -> Path:
    """The folder itself, or the snapshot of a hub name."""
    folder = Path(name).expanduser()
    return folder if folder.is_dir() else _snapshot(name)


# ---------------------------------------------------------------------------------------------- what a folder says


@dataclass(frozen=True)
class _Encoder:
    """How a folder turns a text into a vector."""

    name: str
    transformer: Path
    pooling: tuple[str, ...]
    after: tuple[tuple[str, Path], ...]
    """Dense and Normalize modules, in order."""
    longest: int | None
    """Most tokens, as the folder says."""
    lower: bool
    prompt: str
    """Put before every text."""
    fingerprint: str


def _open(name: str) -> _Encoder:
    folder = model_folder(name)
    files = sorted(f for pattern in _READ for f in folder.rglob(pattern))
    stamp = tuple((str(f.relative_to(folder)), f.stat().st_size, f.stat().st_mtime_ns) for f in files)
    return _describe(name, folder, stamp)


@lru_cache(maxsize=16)
def _describe(name: str, folder: Path, stamp: tuple[tuple[str, int, int], ...]) -> _Encoder:
    """`stamp` (name, size and time of the files) makes a changed folder a new encoder."""
    pooling, after, transformer = ("mean",), [], folder
    if (folder / "modules.json").is_file():
        pooling = ()
        for module in _json(name, folder / "modules.json"):
            path, kind = folder / module.get("path", ""), str(module.get("type", "")).rsplit(".", 1)[-1]
            if kind == "Transformer":
                transformer = path
            elif kind == "Pooling":
                pooling = _pooling(name, _json(name, path / "config.json"))
            elif kind in ("Dense", "Normalize"):
                after.append((kind, path))
            else:
                raise _unusable(name, f"its module {kind!r} is not supported")
    settings: dict[str, Any] = next((_json(name, f) for f in sorted(transformer.glob("sentence_*_config.json"))), {})
    prompts = _json(name, f) if (f := folder / "config_sentence_transformers.json").is_file() else {}
    prompt = (prompts.get("prompts") or {}).get(prompts.get("default_prompt_name")) or ""
    longest = settings.get("max_seq_length")
    lower = bool(settings.get("do_lower_case"))
    if not pooling or not (transformer / "config.json").is_file():
        raise _unusable(name, "it has no config.json" if pooling else "it has no pooling module")
    if not any(transformer.glob("*.safetensors")):
        raise _unusable(name, "it has no safetensors weights")
    read = {transformer, *(path for _, path in after)}
    digest = hashlib.sha256(repr((pooling, [kind for kind, _ in after], longest, lower, prompt)).encode())
    for relative, *_ in stamp:
        file = folder / relative
        if file.parent in read and not file.name.endswith(".index.json"):
            with file.open("rb") as stream:
                digest.update(relative.encode() + b"\0" + hashlib.file_digest(stream, "sha256").digest())
    return _Encoder(name, transformer, pooling, tuple(after), longest, lower, prompt, digest.hexdigest())


def _pooling(name: str, config: dict[str, Any]) -> tuple[str, ...]:
    given = config.get("pooling_mode") or [key for key, on in config.items() if key.startswith("pooling_mode_") and on is True]
    modes = [given] if isinstance(given, str) else list(given) or ["mean"]
    modes = [_POOLING.get(mode, mode) for mode in modes]
    if unknown := [mode for mode in modes if mode not in _POOLING.values()]:
        raise _unusable(name, f"its pooling {unknown[0]!r} is not supported")
    if config.get("include_prompt") is False:
        raise _unusable(name, "its pooling leaves out a prompt, which is not supported")
    # newer versions write the order down; older ones have flags and one order for all
    return tuple(modes) if config.get("pooling_mode") else tuple(mode for mode in _POOLING.values() if mode in modes)


def _json(name: str, path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _unusable(name, f"{path.name} cannot be read ({error})") from None


def _unusable(name: str, problem: str) -> UnreadableSource:
    return UnreadableSource(name, problem, "Give a sentence-transformers or transformers encoder with safetensors weights.")


@lru_cache(maxsize=16)
def _snapshot(name: str) -> Path:
    """Folder of a hub model. One that is already here is taken as it is: a model must not change between two runs of a study."""
    if name.startswith((".", "/", "~")):
        raise InvalidSetting("features", name, "There is no such folder; give an encoder's folder or its name on the Hugging Face hub.")
    hub = _import("huggingface_hub")
    # models of sentence-transformers keep their modules in numbered folders; ONNX and other exports are not wanted
    patterns = [*_READ, *(f"[0-9]_*/{pattern}" for pattern in _READ)]
    try:
        try:
            folder = Path(hub.snapshot_download(name, local_files_only=True))
        except _import("huggingface_hub.errors").LocalEntryNotFoundError:
            folder = None
        if folder is None or not _is_complete(folder):
            folder = Path(hub.snapshot_download(name, allow_patterns=patterns, ignore_patterns=["onnx/*", "openvino/*"]))
    except (OSError, ValueError) as error:
        raise UnreadableSource(
            name,
            f"it is no folder, and cannot be had from the hub ({str(error).splitlines()[0] if str(error) else type(error).__name__})",
            "Use hash or tabular, or check the encoder's name, the network and that you are logged in.",
        ) from None
    return folder


def _is_complete(folder: Path) -> bool:
    """Whether nothing that the folder's own indexes name is missing."""
    needed = {folder / "config.json"} if not (folder / "modules.json").is_file() else set[Path]()
    for index in folder.rglob("*.safetensors.index.json"):
        needed |= {index.parent / shard for shard in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()}
    if (folder / "modules.json").is_file():
        for module in json.loads((folder / "modules.json").read_text(encoding="utf-8")):
            if not str(module["type"]).endswith("Normalize"):
                needed.add(folder / module["path"] / "config.json")
    return all(path.is_file() for path in needed) and any(folder.rglob("*.safetensors"))


def _import(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError:
        raise MissingExtra("lm", "Encoding texts with a language model") from None


# ---------------------------------------------------------------------------------------------- running it


@dataclass(frozen=True, eq=False)
class _Loaded:
    """An encoder in memory."""

    tokenizer: Any
    model: Any
    device: Any
    longest: int
    pooling: tuple[str, ...]
    after: tuple[tuple[Any, Any, str] | None, ...]
    """(weight, bias or None, activation) of a dense layer; None where the vector is normalised."""
    lower: bool
    prompt: str
    lock: threading.Lock = field(default_factory=threading.Lock)
    """A fast tokenizer fails when two threads use it at once."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(n, d), in batches of texts of similar length."""
        import torch

        # a lone surrogate has no UTF-8 form, which the tokenizers ask for
        clean = [(self.prompt + text).encode("utf-8", "replace").decode() for text in texts]
        with self.lock:
            encoded = self.tokenizer([t.lower() for t in clean] if self.lower else clean, truncation=True, max_length=self.longest)
        columns: dict[str, list[list[int]]] = {k: encoded[k] for k in self.tokenizer.model_input_names if k in encoded}
        fill = {"input_ids": self.tokenizer.pad_token_id or 0, "token_type_ids": self.tokenizer.pad_token_type_id}
        for row, ids in enumerate(columns["input_ids"]):
            if not ids:  # a model without special tokens makes nothing of an empty text: show it one padding token
                for key, column in columns.items():
                    column[row] = [1 if key == "attention_mask" else fill.get(key, 0)]
        lengths = np.array([len(ids) for ids in columns["input_ids"]])
        out: NDArray[np.float32] | None = None
        for rows in batches_of(lengths):
            width = int(lengths[rows].max())
            batch = {
                key: torch.tensor([column[r] + [fill.get(key, 0)] * (width - len(column[r])) for r in rows], device=self.device)
                for key, column in columns.items()
            }
            mask = torch.from_numpy(np.arange(width) < lengths[rows, None]).to(self.device)
            if "attention_mask" in batch:
                mask = batch["attention_mask"].bool()
            with torch.inference_mode():
                vectors = self._pooled(self.model(**batch).last_hidden_state.float(), mask).cpu().numpy()
            if out is None:
                out = np.empty((len(texts), vectors.shape[1]), dtype=np.float32)
            out[rows] = vectors
        assert out is not None
        return out

    def _pooled(self, tokens: Any, mask: Any) -> Any:
        """Token vectors (n, tokens, d) to one vector per text."""
        import torch

        weight = mask.unsqueeze(-1).to(tokens.dtype)
        parts: list[Any] = []
        for mode in self.pooling:
            if mode == "mean":
                parts.append((tokens * weight).sum(1) / weight.sum(1).clamp(min=1))
            elif mode == "max":
                parts.append(tokens.masked_fill(~mask.unsqueeze(-1), -torch.inf).amax(1))
            else:  # padding is on the right
                row = torch.arange(len(tokens), device=tokens.device)
                parts.append(tokens[row, mask.sum(1) - 1] if mode == "lasttoken" else tokens[:, 0])
        vectors = torch.cat(parts, dim=-1)
        for layer in self.after:
            if layer is None:
                vectors = torch.nn.functional.normalize(vectors, dim=-1)
            else:
                vectors = torch.nn.functional.linear(vectors, layer[0], layer[1])
                vectors = torch.tanh(vectors) if layer[2] == "Tanh" else vectors
        return vectors


def batches_of(lengths: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Rows of similar length, at most _TOKENS tokens (at least one row) a batch, the longest first so that memory runs out at once."""
    order = np.argsort(-lengths, kind="stable")
    start, done, total = 0, 0, max(int(lengths.sum()), 1)
    while start < len(order):
        stop = start + max(1, _TOKENS // int(lengths[order[start]]))
        yield order[start:stop]
        done += int(lengths[order[start:stop]].sum())
        tell("encoding", done / total)
        start = stop


@lru_cache(maxsize=1)
def _loaded(encoder: _Encoder) -> _Loaded:
    import torch
    from safetensors.torch import load_file

    transformers = _import("transformers")
    try:
        with quiet(transformers):
            tokenizer = transformers.AutoTokenizer.from_pretrained(encoder.transformer, trust_remote_code=False)
            model, report = transformers.AutoModel.from_pretrained(
                encoder.transformer, trust_remote_code=False, use_safetensors=True, output_loading_info=True
            )
        after: list[tuple[Any, Any, str] | None] = []
        for kind, path in encoder.after:
            after.append(None if kind == "Normalize" else _dense(encoder.name, path, load_file(path / "model.safetensors")))
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise _unusable(encoder.name, f"it cannot be loaded ({error})") from None
    # transformers fills what a checkpoint lacks with random numbers; only the unused pooler and decoder may be
    unused = ("pooler", "decoder.", "lm_head") if model.config.is_encoder_decoder else ("pooler",)
    if absent := sorted(key for key in report["missing_keys"] if not any(u in key for u in unused)):
        raise _unusable(encoder.name, f"its weights lack {len(absent)} tensors, such as {absent[0]}")
    if model.config.is_encoder_decoder:
        model = model.get_encoder()
    tokenizer.padding_side = tokenizer.truncation_side = "right"
    limits = (encoder.longest or tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", None))
    # an absent limit is None or, in a tokenizer, 1e30
    longest = min((n for n in limits if n is not None and 0 < n < 10**6), default=_LONGEST)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    placed = tuple(layer if layer is None else (*(t if t is None else t.to(device) for t in layer[:2]), layer[2]) for layer in after)
    model = model.eval().float().to(device)
    return _Loaded(tokenizer, model, device, longest, encoder.pooling, placed, encoder.lower, encoder.prompt)  # pyright: ignore[reportArgumentType]  # the star hides the length


def _dense(name: str, path: Path, tensors: dict[str, Any]) -> tuple[Any, Any, str]:
    config = _json(name, path / "config.json")
    activation = str(config.get("activation_function", "Tanh")).rsplit(".", 1)[-1]
    if activation not in ("Tanh", "Identity") or config.get("use_residual"):
        raise _unusable(name, f"its dense layer with {activation} is not supported")
    bias = tensors.get("linear.bias")
    return tensors["linear.weight"].float(), None if bias is None else bias.float(), activation


@contextmanager
def quiet(transformers: Any) -> Generator[None]:
    """Without the progress bar and the notes that loading prints."""
    logging = transformers.utils.logging
    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()


# ---------------------------------------------------------------------------------------------- the store


def _cache_folder() -> Path:
    given = os.environ.get("SEAMARK_CACHE")
    return (Path(given).expanduser() if given else Path.home() / ".cache" / "seamark") / "encodings"


@dataclass(frozen=True)
class _Store:
    """Vectors by the digest of their text, in segments (.npz of `digests` (n, 32) uint8 and `vectors` (n, d) float32)."""

    folder: Path

    def read(self, wanted: Iterable[bytes]) -> dict[bytes, NDArray[np.float32]]:
        """Those of the wanted that are here."""
        missing = set(wanted)
        found: dict[bytes, NDArray[np.float32]] = {}
        for path in sorted(self.folder.glob("*.npz")):
            if not missing:
                break
            try:
                rows = _rows_of(path)
                here = missing & rows.keys()
                if here:
                    vectors = _read_segment(path, "vectors")
                    if len(vectors) != len(rows):
                        raise ValueError(f"{path} is not a segment")
                    found |= {digest: vectors[rows[digest]] for digest in here}
                    missing -= here
            except _DAMAGED:
                with suppress(OSError):
                    path.unlink()
            except OSError:  # merged by another process, or not ours to read
                continue
        return found

    def write(self, digests: Sequence[bytes], vectors: NDArray[np.float32]) -> None:
        """A new segment; small ones are merged once there are many."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._write_segment(np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, 32), vectors)
            half = _SEGMENT // 2 * (4 * vectors.shape[1] + 32)
            small = [path for path in self.folder.glob("*.npz") if path.stat().st_size < half]
            if len(small) > _SMALL_SEGMENTS:
                self._merge(sorted(small))
        except FileNotFoundError:
            pass  # another process merged first
        except OSError as error:
            warnings.warn(f"encodings are not kept for the next run: {error}", stacklevel=3)

    def _merge(self, paths: Sequence[Path]) -> None:
        parts: list[tuple[NDArray[np.uint8], NDArray[np.float32]]] = []
        for path in paths:
            try:
                parts.append((_read_segment(path, "digests"), _read_segment(path, "vectors")))
            except (*_DAMAGED, OSError):
                continue
        if not parts:
            return
        digests, vectors = np.concatenate([d for d, _ in parts]), np.concatenate([v for _, v in parts])
        first = np.sort(np.unique(digests, axis=0, return_index=True)[1])
        kept = self._write_segment(digests[first], vectors[first])
        for path in paths:
            if path != kept:
                path.unlink(missing_ok=True)

    def _write_segment(self, digests: NDArray[np.uint8], vectors: NDArray[np.float32]) -> Path:
        name = hashlib.sha256(digests.tobytes() + vectors.tobytes()).hexdigest()[:32]
        path = self.folder / f"{name}.npz"
        with tempfile.NamedTemporaryFile(dir=self.folder, suffix=".part", delete=False) as stream:
            try:
                np.savez(stream, digests=digests, vectors=vectors)
                stream.close()
                os.replace(stream.name, path)
            except BaseException:
                Path(stream.name).unlink(missing_ok=True)
                raise
        return path


_DAMAGED = (ValueError, KeyError, TypeError, EOFError, RuntimeError, zipfile.BadZipFile)
"""What NumPy and zipfile raise on a file that is cut short, changed, or something else."""


def _read_segment(path: Path, part: str) -> NDArray[Any]:
    """Digests or vectors; the checksum of the zip member is checked on the way."""
    # a stream of our own: np.load leaves its own open when the file is damaged
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
        array = arrays[part]
    if array.ndim != 2 or array.dtype != (np.uint8 if part == "digests" else np.float32):
        raise ValueError(f"{path} is not a segment")
    return array


@lru_cache(maxsize=256)
def _rows_of(path: Path) -> dict[bytes, int]:
    """Row of each text in a segment, which never changes once it is written."""
    digests = np.ascontiguousarray(_read_segment(path, "digests"))
    if digests.shape[1] != 32:
        raise ValueError(f"{path} is not a segment")
    return {row.tobytes(): i for i, row in enumerate(digests)}
