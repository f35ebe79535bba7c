"""The model card that travels with a bundle."""

from __future__ import annotations

from typing import Any

from mirasol.core.errors import install
from mirasol.runtime.contract import Contract

SHOWN_PROMPTS = 10


def model_card(contract: Contract, scores: dict[str, Any]) -> str:
    """`README.md` of a bundle, from its contract and `reports/eval.json` (may be empty)."""
    m, clip, origin = contract.model, contract.clip, contract.provenance
    seconds = f"{clip.chunk_seconds:g}"
    lines = [
        "# Mirasol3B bundle",
        "",
        "Answers questions about a live stream of video and sound, chunk by chunk, without PyTorch.",
        "",
        "| | |",
        "| --- | --- |",
        f"| model | {m.parameters:,} parameters, {m.combiner} combiner, {m.latent} latent, d = {m.width}, "
        f"m = {m.combined} features per chunk |",
        f"| a chunk | {seconds} s: {clip.frames_per_chunk} frames of {clip.size}x{clip.size} at {clip.fps:g}/s, "
        f"{clip.audio_columns} columns of {clip.mels} mels from {clip.sample_rate} Hz mono |",
        f"| memory | the last {m.max_chunks} chunks ({m.max_chunks * clip.chunk_seconds:g} s) |",
        f"| text | {m.vocabulary} pieces, question and answer together at most {m.max_text} tokens |",
        f"| precision, opset | {m.precision}, {contract.opset} |",
        f"| commit | {origin.commit or 'unknown'}{' with changes' if origin.changed else ''} |",
        f"| data | {origin.data or 'unknown'} |",
        f"| params | {origin.params or 'unknown'} |",
        "",
        "## Use",
        "",
        "```",
        'mirasol answer FILE "question" --bundle THIS_FOLDER',
        'mirasol stream FILE --ask "question" --bundle THIS_FOLDER',
        "```",
        "",
        f"Needs numpy, PyAV and onnxruntime: {install('runtime')}.",
        "Any other program can run it from `contract.json` alone, which names every input and output, and check itself",
        "with `golden.npz`.",
        "",
        "## How good it is",
        "",
        *_score_lines(scores),
        "",
        "It answers in the vocabulary and about the kind of clips that it was trained on, and in a confident tone",
        "always. What it says about anything else means nothing.",
        *_prompt_lines(contract),
        "",
        "## Licence",
        "",
        "The code is Apache-2.0. The weights carry what the licences of the data they were trained on ask for.",
        "",
    ]
    return "\n".join(lines)


def _prompt_lines(contract: Contract) -> list[str]:
    if not contract.prompts:
        return []
    shown = contract.prompts[:SHOWN_PROMPTS]
    return [
        "",
        f"Questions that it learnt, the most frequent of {len(contract.prompts):,}:",
        "",
        *(f"- {p}" for p in shown),
    ]


def _score_lines(scores: dict[str, Any]) -> list[str]:
    overall = scores.get("overall")
    if not overall:
        return ["Not evaluated."]
    rows = {"all": overall, **scores.get("families", {})}
    lines = [
        f"Exact match on the {scores.get('split', 'held-out')} split, with its 95 % interval over clips.",
        "",
        "| family | exact match | 95 % | chance | questions |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, row in rows.items():
        low, high = row["ci95"]
        chance = f"{row['chance']:.2f}" if row.get("chance") is not None else ""
        lines.append(f"| {name} | {row['exact_match']:.3f} | {low:.3f} to {high:.3f} | {chance} | {row['n']} |")
    return lines
