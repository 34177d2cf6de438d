"""Every way in which a checkpoint or a server can be wrong, made on purpose and named; and right ones of every architecture that pass."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentences import assert_written
from small_models import save_small, small_model, small_tokenizer
from small_server import serve

import seamark as sm
from seamark.checks import parity
from seamark.checks.findings import Findings
from seamark.checks.parity import _difference, _Special, check_parity, trap_conversations
from seamark.cli import main
from seamark.errors import InvalidSetting, MissingExtra, UnreadableSource
from seamark.models.checkpoint import SIDECAR
from seamark.models.conversations import Conversations, plain_template
from seamark.records import Feedback
from seamark.reward import export_reward_model, paths
from seamark.reward.paths import Reference, describe

KINDS = ("llama", "qwen3", "gpt2", "bert")
TWO = [("How do I bake bread?", "Mix flour and water."), ("Why?", "I cannot help with that, I am afraid.")]
USES = ("transformers", "transformers/single", "trl", "trl/trainer")
"""Ways that a sound checkpoint must be read alike in."""


def found(findings: Findings, *verdicts: str) -> set[str]:
    return {f.code for f in findings if f.verdict in verdicts}


def blocking(findings: Findings) -> set[str]:
    return found(findings, "blocking")


def remember(folder: Path, **changed: Any) -> Path:
    """seamark.json as training writes it."""
    reference = Reference.open(str(folder))
    longest = changed.get("longest", reference.conversations.longest)
    said = {"longest": longest, "overlong": "cut", "digest": Conversations(reference.conversations.tokenizer, longest, "cut").digest}
    (folder / SIDECAR).write_text(json.dumps({"seamark": "reward model", "conversations": said}), encoding="utf-8")
    return folder


def with_template(**settings: Any) -> Any:
    """A tokenizer whose conversations end with its end token."""
    tokenizer = small_tokenizer(chat=False, **settings)
    tokenizer.chat_template = plain_template(tokenizer)
    return tokenizer


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The sound checkpoint of a kind."""
    made: dict[str, Path] = {}

    def _saved(kind: str) -> Path:
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind)
            tokenizer = small_tokenizer(bert=kind == "bert")
            if kind == "bert":
                tokenizer.chat_template = plain_template(tokenizer)
            made[kind] = remember(save_small(folder, kind, tokenizer=tokenizer, problem_type="regression"))
        return made[kind]

    return _saved


@pytest.fixture
def http_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what a server answers is compared."""
    ways = parity._ways
    monkeypatch.setattr(parity, "_ways", lambda checkpoint, url: [way for way in ways(checkpoint, url) if way.code.startswith("http")])


@pytest.fixture(scope="session")
def with_server(saved: Callable[[str], Path]) -> Callable[..., Findings]:
    def _with_server(*wrong: str, kind: str = "llama", **more: Any) -> Findings:
        with serve(saved(kind), *wrong) as served:
            return check_parity(str(saved(kind)), url=f"{served.url}/classify", **more)

    return _with_server


# ---------------------------------------------------------------------------------------------- what is right


@pytest.mark.parametrize("kind", KINDS)
def test_a_sound_checkpoint_is_read_alike_everywhere(kind: str, with_server: Callable[..., Findings]) -> None:
    findings = with_server(kind=kind)
    assert not blocking(findings), str(findings)
    for way in (*USES, "http", "http/messages"):
        ok = findings.get(f"parity/{way}")
        assert ok is not None, way
        assert ok.verdict == "ok"
        assert ok.estimate is not None
        assert ok.estimate < 1e-3
        assert ok.n is not None
        assert ok.n >= 12
    assert findings.get("checkpoint/digest").verdict == "ok"
    for finding in findings:
        assert_written(finding)
        finding.to_dict()


def test_what_seamark_exports_is_read_alike_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tokenizer without a template is given one; length and style are left to the charter."""
    monkeypatch.setenv("SEAMARK_CACHE", str(tmp_path / "cache"))
    base = save_small(tmp_path / "base", tokenizer=small_tokenizer(chat=False))
    feedback = judged(40)
    fit = sm.fit(feedback, utility=sm.Linear(str(base)))
    export_reward_model(fit, tmp_path / "out", charter=sm.Charter.model_validate({"effects": {"style": "discount"}}))
    findings = check_parity(str(tmp_path / "out"), judgments=feedback)
    assert not blocking(findings), str(findings)
    for code in (
        "checkpoint/digest",
        "checkpoint/pad",
        "checkpoint/problem-type",
        "parity/policy-tokens",
        *(f"parity/{way}" for way in USES),
    ):
        assert findings.get(code).verdict == "ok", code


def test_traps_of_use_are_named_and_do_not_block(with_server: Callable[..., Findings]) -> None:
    """Text with special tokens added twice, and TRL's plain texts, which are read without beginning, end and template."""
    findings = with_server()
    assert found(findings, "warning") == {
        "parity/transformers/text/bos-doubled", "parity/http/defaults/bos-doubled", "parity/trl/standard/bos-missing",
        "parity/trl/standard/eos-missing", "parity/trl/standard/template", "parity/trl/trainer-standard/template", "parity/policy-tokens",
    }  # fmt: skip
    for finding in findings:
        assert finding.verdict != "warning" or finding.remedy


def test_a_template_that_ends_with_the_end_token_suits_a_policys_own_tokens(tmp_path: Path) -> None:
    findings = check_parity(str(save_small(tmp_path, tokenizer=with_template())), TWO)
    assert findings.get("parity/policy-tokens").verdict == "ok"
    assert findings.get("parity/policy-tokens").estimate == 0


def test_a_template_that_ends_otherwise_is_measured(saved: Callable[[str], Path]) -> None:
    reference = Reference.open(str(saved("llama")))
    rows = reference.encode(TWO)
    assert all(row[-2] == reference.conversations.tokenizer.eos_token_id for row in rows)
    full, cut = reference.score(rows), reference.score([row[:-1] for row in rows])
    finding = check_parity(str(saved("llama")), TWO).get("parity/policy-tokens")
    assert finding.estimate == pytest.approx(np.abs(full - cut).max() / full.std(ddof=1))
    assert finding.verdict == "warning"


def test_the_conversations_that_are_built_in_set_traps(saved: Callable[[str], Path]) -> None:
    reference = Reference.open(str(saved("llama")))
    conversations = trap_conversations(reference)
    prompts = [p for p, _ in conversations]
    assert None in prompts
    assert any(isinstance(p, list) and p[0]["role"] == "system" for p in prompts)
    assert any(response != response.strip() for _, response in conversations)
    assert any(reference.conversations.tokenizer.eos_token in response for _, response in conversations)
    lengths = [len(row) for row in reference.encode(conversations)]
    assert max(lengths) > 400
    assert max(lengths) <= reference.conversations.longest
    assert min(lengths) < 25


def test_a_template_without_a_system_message_is_no_error(tmp_path: Path) -> None:
    tokenizer = small_tokenizer()
    strict = "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}{% endfor %}"
    tokenizer.chat_template = strict + tokenizer.chat_template
    reference = Reference.open(str(save_small(tmp_path, tokenizer=tokenizer)))
    assert not any(isinstance(p, list) and p[0]["role"] == "system" for p, _ in trap_conversations(reference))


# ---------------------------------------------------------------------------------------------- checkpoints that are wrong on purpose


def test_pad_that_is_the_end_token(tmp_path: Path) -> None:
    tokenizer = with_template()
    tokenizer.pad_token = tokenizer.eos_token
    findings = check_parity(str(save_small(tmp_path, tokenizer=tokenizer, problem_type="regression")))
    assert blocking(findings) == {f"parity/{way}/pad-is-eos" for way in USES}
    assert "checkpoint/pad" in found(findings, "warning")
    assert "eos" not in " ".join(f.code for f in findings if f.verdict == "ok")


def test_a_tokenizer_without_pad_token(tmp_path: Path) -> None:
    """transformers cannot make batches; TRL takes the end token for a pad, which is then skipped."""
    tokenizer = with_template()
    tokenizer.pad_token = None
    findings = check_parity(str(save_small(tmp_path, tokenizer=tokenizer)), TWO)
    trl = {"parity/trl/pad-is-eos", "parity/trl/trainer/pad-is-eos"}
    assert blocking(findings) == {"checkpoint/pad", "parity/transformers/fails", *trl}


def test_pad_that_is_the_end_token_does_no_harm_where_conversations_end_otherwise(tmp_path: Path) -> None:
    tokenizer = small_tokenizer()  # its template ends with a line break
    tokenizer.pad_token = tokenizer.eos_token
    findings = check_parity(str(save_small(tmp_path, tokenizer=tokenizer, problem_type="regression")))
    assert not blocking(findings)
    assert "checkpoint/pad" in found(findings, "warning")


def test_a_model_without_pad_token(tmp_path: Path) -> None:
    tokenizer = small_tokenizer()
    save_small(tmp_path, tokenizer=tokenizer, problem_type="regression")
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(config | {"pad_token_id": None}), encoding="utf-8")
    findings = check_parity(str(tmp_path), TWO)
    assert blocking(findings) == {"checkpoint/pad", "parity/transformers/fails"}  # TRL sets it, and one at a time needs none


@pytest.mark.parametrize(("kind", "harmed"), [("gpt2", {"parity/transformers/left-padding"}), ("llama", set())])
def test_pads_on_the_left(kind: str, harmed: set[str], tmp_path: Path) -> None:
    """They shift learnt positions, and rotary ones only all alike. TRL asks for the right."""
    save_small(tmp_path, kind, problem_type="regression")
    config = tmp_path / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text(encoding="utf-8")) | {"padding_side": "left"}), encoding="utf-8")
    assert blocking(check_parity(str(tmp_path))) == harmed


def test_no_template(tmp_path: Path) -> None:
    findings = check_parity(str(save_small(tmp_path, tokenizer=small_tokenizer(chat=False))), TWO)
    assert blocking(findings) == {"checkpoint/template", *(f"parity/{way}/fails" for way in USES)}


def test_a_template_that_was_changed_after_training(tmp_path: Path) -> None:
    folder = remember(save_small(tmp_path, problem_type="regression"))
    assert describe(str(folder)).as_trained
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text(encoding="utf-8").replace("<|", "[").replace("|>", "]"), encoding="utf-8")
    assert blocking(check_parity(str(folder), TWO)) == {"checkpoint/digest"}


def test_two_labels(tmp_path: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    tokenizer = small_tokenizer()
    save_small(tmp_path, tokenizer=tokenizer)
    config = AutoConfig.from_pretrained(tmp_path, num_labels=2)
    torch.manual_seed(0)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    findings = check_parity(str(tmp_path), TWO)
    assert blocking(findings) == {"checkpoint/labels", "parity/trl/fails", "parity/trl/trainer/fails"}
    assert "checkpoint/problem-type" in found(findings, "warning")


def test_weights_in_half_precision(tmp_path: Path) -> None:
    import torch

    tokenizer = small_tokenizer()
    small_model(tokenizer=tokenizer, problem_type="regression").to(torch.bfloat16).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    findings = check_parity(str(tmp_path))
    assert not blocking(findings)
    # RewardTrainer reads in 32 bits
    assert {"parity/transformers/half-precision", "parity/transformers/single/half-precision", "parity/trl/half-precision"} <= found(
        findings, "warning"
    )
    assert findings.get("parity/trl/trainer").verdict == "ok"
    assert findings.get("parity/transformers/half-precision").details["dtype"] == "bfloat16"


def test_a_head_that_is_not_saved(tmp_path: Path) -> None:
    from transformers import LlamaForCausalLM

    tokenizer = small_tokenizer()
    LlamaForCausalLM(small_model(tokenizer=tokenizer).config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    findings = check_parity(str(tmp_path), TWO)
    assert {"checkpoint/head", "parity/random-head"} <= blocking(findings)
    lost = findings.get("parity/random-head")
    assert lost.n == 2
    assert lost.estimate > 0.1
    assert not any(f.code.startswith("parity/t") for f in findings), "nothing can be compared with a random head"
    for finding in findings:
        assert_written(finding)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_an_adapter_with_its_head_and_one_that_lost_it(tmp_path: Path) -> None:
    import peft
    from transformers import LlamaForCausalLM

    tokenizer = small_tokenizer()
    model = small_model(tokenizer=tokenizer)
    LlamaForCausalLM(model.config).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    for name, task in (("kept", "SEQ_CLS"), ("lost", None)):
        reward = small_model(tokenizer=tokenizer)
        reward.config._name_or_path = reward.name_or_path = str(tmp_path / "base")
        config = peft.LoraConfig(task_type=task, r=2, target_modules=["q_proj"])
        peft.get_peft_model(reward, config).save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    # the template of the adapter's folder, which TRL does not read: it takes the tokenizer of the model beneath
    other = with_template()
    small = small_model(tokenizer=tokenizer)
    small.config._name_or_path = small.name_or_path = str(tmp_path / "base")
    peft.get_peft_model(small, peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["q_proj"])).save_pretrained(tmp_path / "other")
    other.save_pretrained(tmp_path / "other")
    kept, lost = (check_parity(str(tmp_path / name), TWO) for name in ("kept", "lost"))
    assert {"checkpoint/head", "parity/lora-head-lost"} <= blocking(lost)
    assert kept.get("checkpoint/head").verdict == "ok"
    for way in ("transformers/single", "trl", "trl/trainer"):
        assert kept.get(f"parity/{way}").verdict == "ok"
    assert {"parity/trl/template", "parity/trl/trainer/template"} <= blocking(check_parity(str(tmp_path / "other"), TWO))


# ---------------------------------------------------------------------------------------------- servers that are wrong on purpose


@pytest.mark.usefixtures("http_alone")
@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (("sigmoid",), {"http": {"sigmoid"}, "http/messages": {"sigmoid"}}),
        (("bos",), {"http": {"bos-doubled"}, "http/messages": set()}),
        (("bos", "sigmoid"), {"http": {"bos-doubled", "sigmoid"}, "http/messages": {"sigmoid"}}),
        (("eos",), {"http": {"eos-missing"}, "http/messages": {"eos-missing"}}),
        (("plain",), {"http": set(), "http/messages": {"template"}}),
        (("prompted",), {"http": {"generation-prompt"}, "http/messages": {"generation-prompt"}}),
        (("cut",), {"http": {"cut"}, "http/messages": {"cut"}}),
        (("noise",), {"http": {"not-repeatable"}, "http/messages": {"not-repeatable"}}),
        (("other",), {"http": {"unexplained"}, "http/messages": {"unexplained"}}),
    ],
    ids=lambda x: "-".join(x) if isinstance(x, tuple) else "",
)
def test_the_fault_of_a_server_is_named(wrong: tuple[str, ...], named: dict[str, set[str]], with_server: Callable[..., Findings]) -> None:
    findings = with_server(*wrong)
    for way, causes in named.items():
        said = {code.removeprefix(f"parity/{way}/") for code in blocking(findings) if code.rpartition("/")[0] == f"parity/{way}"}
        assert causes <= said, str(findings)
        # beginning and end go with the template: without it they are missing as well
        assert said - causes <= ({"bos-missing", "eos-missing"} if "plain" in wrong else set()), str(findings)
    for finding in findings:
        assert_written(finding)


@pytest.mark.usefixtures("http_alone")
def test_a_server_that_reads_before_its_pads(tmp_path: Path) -> None:
    tokenizer = with_template()
    tokenizer.pad_token = tokenizer.eos_token
    folder = save_small(tmp_path, tokenizer=tokenizer)
    with serve(folder, "pad") as served:
        findings = check_parity(str(folder), url=f"{served.url}/classify")
    # without the one end token at its end: the same tokens, by either name
    assert {"parity/http/pad-is-eos"} <= blocking(findings)


@pytest.mark.usefixtures("http_alone")
def test_a_server_in_half_precision(with_server: Callable[..., Findings]) -> None:
    findings = with_server("half")
    assert not blocking(findings), str(findings)
    assert {"parity/http/half-precision", "parity/http/messages/half-precision"} <= found(findings, "warning")


@pytest.mark.usefixtures("http_alone")
def test_defaults_of_a_server_of_a_model_that_is_no_regression(tmp_path: Path) -> None:
    """vLLM puts a sigmoid on the one score, and adds special tokens, unless it is asked not to."""
    folder = save_small(tmp_path)
    with serve(folder) as served:
        findings = check_parity(str(folder), url=f"{served.url}/classify")
    assert not blocking(findings)
    assert {"parity/http/defaults/sigmoid", "parity/http/defaults/bos-doubled", "checkpoint/problem-type"} <= found(findings, "warning")


@pytest.mark.usefixtures("http_alone")
def test_a_server_without_turns_is_no_fault(with_server: Callable[..., Findings]) -> None:
    findings = with_server("turns")
    assert not blocking(findings)
    assert findings.get("parity/http/messages").verdict == "not_applicable"


@pytest.mark.usefixtures("http_alone")
@pytest.mark.parametrize("path", ["/get_reward", "/v1/score/evaluation"])
def test_other_servers(path: str, saved: Callable[[str], Path]) -> None:
    with serve(saved("llama")) as served:
        findings = check_parity(str(saved("llama")), TWO, url=served.url + path)
    assert findings.get("parity/http").verdict == "ok"
    assert not any(code.startswith("parity/http/") for code in found(findings, "blocking", "warning", "ok"))


def test_without_trl_the_others_are_compared(saved: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise MissingExtra("policy", "Comparing scores with TRL's")

    monkeypatch.setattr(paths, "_trl", missing)
    findings = check_parity(str(saved("llama")), TWO)
    assert not blocking(findings)
    assert findings.get("parity/trl").verdict == "not_applicable"
    assert "seamark[policy]" in findings.get("parity/trl").reason
    assert findings.get("parity/transformers").verdict == "ok"


@pytest.mark.usefixtures("http_alone")
def test_nobody_answers(saved: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "_RETRY_S", 0.01)
    with serve(saved("llama")) as served:
        url = served.url
    with pytest.raises(UnreadableSource, match="does not answer"):
        check_parity(str(saved("llama")), TWO, url=url)


# ---------------------------------------------------------------------------------------------- with judgments


def judged(n: int = 12, *, prefix: str = "") -> Feedback:
    return Feedback.from_columns(
        {
            "kind": ["pair"] * n,
            "prompt": [f"{prefix}Question {i}: what is {i} times {i}?" for i in range(n)],
            "texts": [[f"It is {i * i}.", f"I would say {i + 1}, but I am not sure of it at all."] for i in range(n)],
            "outcome": ["left" if i % 3 else "right" for i in range(n)],
            "rater": ["r"] * n,
        }
    )


def test_swapped_labels_add_up(with_server: Callable[..., Findings]) -> None:
    findings = with_server(judgments=judged())
    for way in ("transformers", "http"):
        swap = findings.get(f"swap/{way}")
        assert swap.verdict == "ok"
        assert swap.n == 12
        assert swap.estimate == pytest.approx(1)
        assert swap.details["accuracy"] + swap.details["swapped"] == pytest.approx(1)
    assert not any(f.code.startswith("leakage") for f in findings)
    for finding in findings:
        assert_written(finding)


def test_scores_that_depend_on_the_place_fail_the_swap(with_server: Callable[..., Findings]) -> None:
    """Accuracy is 100% whatever is put first."""
    findings = with_server("place", judgments=judged(4))
    swap = findings.get("swap/http")
    assert swap.verdict == "blocking"
    assert swap.details["accuracy"] == swap.details["swapped"] == 1
    assert findings.get("swap/transformers").verdict == "ok"


def test_pairs_that_are_the_same_tokens_once_they_are_cut(tmp_path: Path) -> None:
    folder = remember(save_small(tmp_path), longest=16)
    same = Feedback.from_columns(
        {
            "kind": ["pair"] * 3,
            "prompt": ["Why?"] * 3,
            "texts": [
                ["Yes. And then we walked on and on and on for days.", "No. And then we walked on and on and on for days."],
                ["Yes.", "No."],
                ["Maybe.", "No."],
            ],
            "outcome": ["left"] * 3,
        }
    )
    finding = check_parity(str(folder), judgments=same).get("identical-pairs/tokens")
    assert finding.estimate == pytest.approx(1 / 3)
    assert finding.n == 3
    assert finding.verdict == "warning"


def test_overlap_with_what_was_trained_on(saved: Callable[[str], Path]) -> None:
    checkpoint = str(saved("llama"))
    again = check_parity(checkpoint, judgments=judged(), train=judged())
    assert again.get("leakage").verdict == "blocking"
    assert again.get("leakage/prompts").estimate == 1
    apart = check_parity(checkpoint, judgments=judged(), train=judged(prefix="Another, quite different one, with other words. "))
    assert apart.get("leakage").verdict == "ok"
    with pytest.raises(InvalidSetting, match="judgments"):
        check_parity(checkpoint, TWO, train=judged())


def test_ties_of_half_precision_are_counted(saved: Callable[[str], Path]) -> None:
    """Against the count by hand, over the same pairs."""
    checkpoint, feedback = str(saved("llama")), judged(30)
    finding = check_parity(checkpoint, judgments=feedback).get("ties/half-precision")
    texts = [[(p, r) for r in rs] for p, rs in zip(feedback.prompts["text"], list(_texts(feedback)), strict=True)]
    full, half = (Reference.open(checkpoint, dtype=d) for d in ("float32", "bfloat16"))
    a, b = (np.array([r.score(r.encode(pair)) for pair in texts]) for r in (full, half))
    differ = a[:, 0] != a[:, 1]
    assert finding.n == int(differ.sum())
    assert finding.estimate == pytest.approx(float((b[differ, 0] == b[differ, 1]).mean()))
    assert finding.low <= finding.estimate <= finding.high


def _texts(feedback: Feedback) -> Iterator[list[str]]:
    names = feedback.responses["text"].to_list()
    for shown in feedback.judgments["responses"].to_list():
        yield [names[i] for i in shown]


def test_a_sample_of_many_is_said(saved: Callable[[str], Path]) -> None:
    findings = check_parity(str(saved("llama")), judgments=judged(80), seed=3)
    assert findings.get("parity/transformers").n == 64
    assert "32 of 80 decided comparisons, drawn at random (seed 3)" in findings.get("swap/transformers").reason


def test_special_tokens_that_a_response_can_write(saved: Callable[[str], Path]) -> None:
    finding = check_parity(str(saved("llama")), TWO).get("checkpoint/special-text")
    assert finding.verdict == "notice"
    assert "</s>" in finding.details["tokens"]


# ---------------------------------------------------------------------------------------------- the parts


@pytest.mark.parametrize(
    ("theirs", "named"),
    [
        ([1, 1, 5, 6, 2], {"bos-doubled"}),
        ([5, 6, 2], {"bos-missing"}),
        ([1, 5, 6], {"eos-missing"}),
        ([1, 5, 6, 2, 2], {"eos-doubled"}),
        ([5, 6], {"bos-missing", "eos-missing"}),
        ([1, 5, 7, 2], {"template"}),
        ([1, 6, 2], {"cut"}),
        ([1, 4, 5, 6, 2], {"whole"}),
        ([1, 4, 6, 5, 2], {"template"}),
        ([1, 5, 6, 2, 8], {"template"}),
    ],
)
def test_what_differs_between_two_rows_of_tokens(theirs: list[int], named: set[str]) -> None:
    special = _Special(frozenset({1}), frozenset({2}), 0)
    assert _difference(np.array([1, 5, 6, 2], dtype=np.int32), np.array(theirs, dtype=np.int32), special) == named


@pytest.mark.parametrize(
    ("ours", "first"), [([1, 6, 7, 8, 2], 5), ([5, 6, 7, 8, 2], 5), ([1, 6, 7, 8], 9)], ids=["begun", "bare", "no end"]
)
def test_what_training_cut_and_others_read_whole(ours: list[int], first: int) -> None:
    """Ours is the first token and the last ones."""
    special = _Special(frozenset({1}), frozenset({2}), 0)
    begun = ours[:1] if ours[0] == 1 else []
    theirs = [*begun, first, 4, 4, *ours[1:]]
    assert _difference(np.array(ours, dtype=np.int32), np.array(theirs, dtype=np.int32), special) == {"whole"}


def test_a_model_trained_on_cut_conversations_is_read_whole_by_others(tmp_path: Path) -> None:
    folder = remember(save_small(tmp_path), longest=40)
    long = "Then we walked on, and the road went ever on and on. " * 6
    findings = check_parity(str(folder), [*TWO, ("Tell me a story.", long), ("Tell me another.", long)])
    assert {"parity/transformers/single/whole", "parity/trl/whole"} <= blocking(findings), str(findings)
    assert not any(code.endswith(("/template", "/cut")) for code in blocking(findings))


def test_too_few_conversations(saved: Callable[[str], Path]) -> None:
    with pytest.raises(InvalidSetting, match="at least two"):
        check_parity(str(saved("llama")), TWO[:1])


def test_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(UnreadableSource):
        check_parity(str(tmp_path / "nothing"))


# ---------------------------------------------------------------------------------------------- the command


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """In this process: (exit status, stdout, stderr)."""

    def _call(*args: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["seamark", "check-parity", *map(str, args)])
        monkeypatch.setenv("COLUMNS", "120")
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return _call


def test_the_command_prints_a_table_and_exits_0(call: Callable[..., tuple[int, str, str]], saved: Callable[[str], Path]) -> None:
    status, out, err = call(saved("llama"))
    assert status == 0, out
    assert "parity/transformers/single" in out
    assert err == ""


def test_the_command_in_json_with_judgments(
    call: Callable[..., tuple[int, str, str]], saved: Callable[[str], Path], tmp_path: Path, require: Callable[[str, str], Any]
) -> None:
    """In the shape of findings.json; overlap with train blocks, and the status says so."""
    judged().to_jsonl(tmp_path / "held.jsonl")
    status, out, _ = call(saved("llama"), tmp_path / "held.jsonl", "--train", tmp_path / "held.jsonl", "--json", "--tolerance", "0.01")
    document = json.loads(out)
    assert status == 1
    schema = json.loads((Path(parity.__file__).parents[1] / "findings.schema.json").read_text(encoding="utf-8"))
    require("jsonschema", "Install the extra dev.").validate(document, schema)
    assert document["data"]["n_judgments"] == 12
    assert {f["code"] for f in document["findings"] if f["verdict"] == "blocking"} == {"leakage"}


def test_the_command_in_json_without_judgments(call: Callable[..., tuple[int, str, str]], saved: Callable[[str], Path]) -> None:
    with serve(saved("llama"), "sigmoid") as served:
        status, out, _ = call(saved("llama"), "--url", served.url, "--json")
    assert status == 1
    codes = {f["code"] for f in json.loads(out)["findings"] if f["verdict"] == "blocking"}
    assert codes == {"parity/http/sigmoid", "parity/http/messages/sigmoid"}


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--url", "file:///etc/passwd"), "--url is 'file:///etc/passwd'"),
        (("--url", "http://127.0.0.1:9/classify"), "does not answer"),
        (("--train", "x.jsonl"), "--train is 'x.jsonl'"),
        (("--tolerance", "-1"), "--tolerance is -1.0"),
    ],
    ids=lambda x: x[0] if isinstance(x, tuple) else "",
)
def test_wrong_use_is_one_message(
    args: tuple[str, ...], said: str, call: Callable[..., tuple[int, str, str]], saved: Callable[[str], Path]
) -> None:
    status, _, err = call(saved("llama"), *args)
    assert status == 2
    assert said in err
    assert err.count("\n") == 1
