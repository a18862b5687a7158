"""Writes transcription.json: what another implementation computes with the weights that our transcription uses.

    python3 -m venv venv && venv/bin/pip install ctranslate2==4.8.5 faster-whisper==1.2.1
    venv/bin/python transcription.py

CTranslate2 reads the same model.bin, in f32; faster-whisper computes the spectrogram. Both are what others run Whisper
with. The recordings are those of the model's cache folder and of Debian's package pocketsphinx-testdata.
"""

import json
import os
import pathlib
import tempfile
import wave

import ctranslate2
import numpy as np
from faster_whisper.feature_extractor import FeatureExtractor

CACHE = pathlib.Path(os.environ.get("JM_MQ_CACHE") or pathlib.Path.home() / ".cache/jm-mq") / "models"
LIBRIVOX = pathlib.Path("/usr/share/pocketsphinx/test/data/librivox")
RECORDINGS = [
    CACHE / "two-speaker-call/sample.wav",
    LIBRIVOX / "sense_and_sensibility_01_austen_64kb-0870.wav",
    LIBRIVOX / "sense_and_sensibility_01_austen_64kb-0890.wav",
]
WINDOW = 480_000  # samples: 30 s
FRAMES = 3_000
BEYOND = 400  # samples that the last frame looks beyond the window, at most
START, ENGLISH, TRANSCRIBE, NO_SPEECH = 50258, 50259, 50359, 50362


def open_model():
    """CTranslate2 wants the vocabulary in a file of its own, beside the weights."""
    source = CACHE / "whisper-base"
    folder = pathlib.Path(tempfile.mkdtemp())
    for file in source.iterdir():
        (folder / file.name).symlink_to(file)
    tokenizer = json.loads((source / "tokenizer.json").read_text())
    tokens = {number: token for token, number in tokenizer["model"]["vocab"].items()}
    tokens |= {added["id"]: added["content"] for added in tokenizer["added_tokens"]}
    (folder / "vocabulary.json").write_text(json.dumps([tokens[number] for number in range(len(tokens))]))
    return ctranslate2.models.Whisper(str(folder), device="cpu", compute_type="float32")


def samples_of(path):
    with wave.open(str(path)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16_000, 1, 2)
        samples = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2")
    samples = samples.astype(np.float32) / 32768
    return np.pad(samples, (0, WINDOW + BEYOND))[: WINDOW + BEYOND]


def picked(matrix, rows, columns):
    """A few of a matrix's numbers, evenly spread, and where they are."""
    places = [
        (int(row), int(column))
        for row in np.linspace(0, matrix.shape[0] - 1, rows)
        for column in np.linspace(0, matrix.shape[1] - 1, columns)
    ]
    return [[row, column, round(float(matrix[row, column]), 5)] for row, column in places]


def described(model, extractor, path):
    spectrogram = extractor(samples_of(path), padding=0)[:, :FRAMES]
    heard = model.encode(ctranslate2.StorageView.from_array(np.ascontiguousarray(spectrogram[None], dtype=np.float32)))
    features = np.array(heard)[0]
    languages = model.detect_language(heard)[0][:5]
    result = model.generate(
        heard,
        [[START, ENGLISH, TRANSCRIBE]],
        beam_size=1,
        max_length=448,
        return_scores=True,
        return_no_speech_prob=True,
        max_initial_timestamp_index=50,
    )[0]
    return {
        "recording": f"{path.parent.name}/{path.name}",
        "spectrogram": picked(spectrogram, 9, 9),
        "features": picked(features, 9, 9),
        "languages": [[token[2:-2], round(likelihood, 6)] for token, likelihood in languages],
        "no_speech": round(result.no_speech_prob, 8),
        "tokens": result.sequences_ids[0],
    }


def main():
    model, extractor = open_model(), FeatureExtractor()
    reference = [described(model, extractor, path) for path in RECORDINGS]
    lines = ",\n".join(json.dumps(one) for one in reference)
    pathlib.Path(__file__).with_suffix(".json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
