"""Inputs of audio and EEG networks: a synthetic voice, chords, brain waves, and their spectra."""

from itertools import pairwise

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from scipy.signal import lfilter, stft

from tests.benchmarks.networks.source import Inputs, Source

Signals = NDArray[np.float32]  # [count, samples], from -1 to 1
RATE = 16_000
VOWELS = ((730, 1090, 2440), (270, 2290, 3010), (530, 1840, 2480), (300, 870, 2240), (570, 840, 2410))  # formants, Hz


def _voices(random: np.random.Generator, count: int, samples: int) -> Signals:
    """Syllables of a voice: a pulse train of 90 to 220 Hz through three formants, with pauses and some noise."""
    return np.stack([_voice(random, samples) for _ in range(count)])


def _voice(random: np.random.Generator, samples: int) -> Signals:
    sound = np.zeros(samples)
    start, pitch = 0, random.uniform(90, 220)
    while start < samples:
        length = int(RATE * random.uniform(0.08, 0.3))
        stop = min(start + length, samples)
        if random.uniform() < 0.8:
            phase = np.cumsum(pitch * random.uniform(0.9, 1.1) / RATE * np.ones(stop - start))
            pulses = np.diff(np.floor(phase), prepend=0) + 0.02 * random.normal(size=stop - start)
            for formant in VOWELS[random.integers(len(VOWELS))]:
                pole = 0.97 * np.exp(2j * np.pi * formant / RATE)
                pulses = lfilter([1 - abs(pole)], np.poly([pole, pole.conjugate()]).real, pulses)
            sound[start:stop] = pulses / (np.abs(pulses).max() or 1.0) * np.hanning(length)[: stop - start]
        start = stop
    return (0.5 * sound + 0.003 * random.normal(size=samples)).astype(np.float32)


def _log_power(signals: Signals, window: int, hop: int, frames: int, floor: float = 1e-12) -> Signals:
    """Decibels [count, frames, window // 2 + 1]."""
    _, _, spectrum = stft(signals, nperseg=window, noverlap=window - hop, boundary=None, padded=False)
    power = np.maximum(np.abs(spectrum) ** 2, floor)
    return (10 * np.log10(power)).transpose(0, 2, 1)[:, :frames].astype(np.float32)


def _bands(frames: Signals, bands: int) -> Signals:
    """Neighbouring frequencies averaged in so many bands, wider to the top as on the mel scale."""
    bins = frames.shape[-1]
    edges = (np.expm1(np.linspace(0, np.log1p(30), bands + 1)) / 30 * bins).astype(int)
    ranges = [(min(low, bins - 1), max(high, low + 1)) for low, high in pairwise(edges)]
    return np.stack([frames[..., low:high].mean(-1) for low, high in ranges], axis=-1)


def speech(source: Source, *, name: str, samples: int, scale: float = 1.0) -> Inputs:
    """The voice itself."""
    return {name: np.float32(scale) * _voices(source.random, source.count, samples)}


def speech_windows(source: Source, *, samples: int, states: dict[str, list[int]], windows: int = 0) -> Inputs:
    """Short windows of the voice; `windows` in turn a sample where given. States start at 0."""
    sound = _voices(source.random, 1, samples * source.count * max(windows, 1))[0]
    shape = (source.count, windows, samples) if windows else (source.count, samples)
    empty = {name: np.zeros((source.count, *sizes), np.float32) for name, sizes in states.items()}
    return {"input": sound.reshape(shape), **empty}


def log_power(source: Source, *, name: str, frames: int, bins: int) -> Inputs:
    """Log power spectra of the voice, hop half a window, about -1 to 1."""
    window = 2 * (bins - 1)
    voices = _voices(source.random, source.count, window // 2 * (frames + 2))
    return {name: (_log_power(voices, window, window // 2, frames) + 60) / 60}


def mel_windows(source: Source, *, name: str, frames: int, bins: int) -> Inputs:
    """Log spectra in mel-like bands, natural logarithm of the power."""
    voices = _voices(source.random, source.count, 160 * (frames + 4))
    return {name: _bands(_log_power(voices, 512, 160, frames), bins) * np.float32(np.log(10) / 10)}


def echo_features(source: Source, *, frames: int, state: int) -> Inputs:
    """A far voice, the microphone (near voice and echo) and the microphone with less echo; a state of 0."""
    far, near = _voices(source.random, 2 * source.count, 256 * (frames + 4)).reshape(2, source.count, -1)
    signals = np.stack([far, near + 0.5 * far, near + 0.05 * far], axis=1)
    decibels = _bands(_log_power(signals.reshape(-1, far.shape[-1]), 512, 256, frames), 160)
    loudest = decibels.max((1, 2), keepdims=True)
    features = (np.maximum(decibels - loudest, -80) + 40) / 40
    return {
        "input": features.reshape(source.count, 3, frames, 160).astype(np.float32),
        "h0": np.zeros((source.count, 4, 1, state), np.float32),
    }


def spectrogram_and_rater(source: Source, *, frames: int) -> Inputs:
    """Log power spectra of the voice with losses, and a normal vector that stands for a listener."""
    voices = _voices(source.random, source.count, 256 * (frames + 2))
    for voice in voices:
        for start in source.random.integers(0, voice.size - 320, 5):
            voice[start : start + 320] = 0
    return {
        "degraded_audio": (_log_power(voices, 512, 256, frames) / 20)[:, None],
        "rater_embed": source.random.normal(size=(source.count, 64)).astype(np.float32),
    }


def chords(source: Source, *, name: str, samples: int) -> Inputs:
    """Three decaying notes with overtones a sample, 22,050 Hz."""
    time = np.arange(samples) / 22_050
    sounds = np.zeros((source.count, samples))
    for sound in sounds:
        for note in source.random.choice(np.arange(45, 80), 3, replace=False):
            pitch = 440 * 2 ** ((note - 69) / 12)
            for overtone in range(1, 5):
                sound += np.exp(-3 * time) / overtone * np.sin(2 * np.pi * pitch * overtone * time)
    return {name: (0.15 * sounds)[..., None].astype(np.float32)}


def wake_word_spectrogram(source: Source) -> Inputs:
    """76 frames as the package's own first network makes them of the voice."""
    return {"input_1": _wake_word_frames(source, source.count)[..., None]}


def wake_word_embeddings(source: Source, *, name: str, frames: int) -> Inputs:
    """Embeddings as the package's own two networks make them of the voice, `frames` in turn a sample."""
    spectra = _wake_word_frames(source, source.count * frames)[..., None]
    found = _session(source, "embedding_model").run(None, {"input_1": spectra})[0]
    return {name: found.reshape(source.count, frames, 96)}


def _wake_word_frames(source: Source, count: int) -> Signals:
    session = _session(source, "melspectrogram")
    voices = 32767 * _voices(source.random, count, 12_640)
    return np.stack([session.run(None, {"input": voice[None]})[0][0, 0] / 10 + 2 for voice in voices])[:, :76]


def _session(source: Source, name: str) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(next(source.package.rglob(f"{name}.onnx"))))


def voice_filter(source: Source, *, frames: int) -> Inputs:
    """Log mel frames of two voices, a unit vector that stands for a speaker, and a state of 0."""
    features = mel_windows(source, name="x", frames=4 * frames, bins=128)["x"].reshape(source.count, frames, 512)
    speaker = source.random.normal(size=(source.count, 256))
    state = np.zeros((source.count, 3, 1, 512), np.float32)
    speaker /= np.linalg.norm(speaker, axis=1, keepdims=True)
    return {"stacked_logmel": features, "dvec": speaker.astype(np.float32), "h0": state, "c0": state}


def _brain_waves(random: np.random.Generator, count: int, samples: int, rate: float) -> Signals:
    """Noise whose power falls with the frequency, and bursts of 13 Hz; mean 0, deviation 1."""
    frequency = np.fft.rfftfreq(samples, 1 / rate)
    spectrum = np.fft.rfft(random.normal(size=(count, samples))) / np.maximum(frequency, 0.5)
    waves = np.fft.irfft(spectrum, samples)
    waves /= waves.std(1, keepdims=True)
    burst = np.hanning(int(rate)) * np.sin(2 * np.pi * 13 * np.arange(int(rate)) / rate)
    for wave in waves:
        for start in random.integers(0, samples - len(burst), 4):
            wave[start : start + len(burst)] += 1.5 * burst
    return ((waves - waves.mean(1, keepdims=True)) / waves.std(1, keepdims=True)).astype(np.float32)


def eeg_spectrogram(source: Source, *, name: str, bins: int, frames: int) -> Inputs:
    """Spectra of one second every half second, each frequency with mean 0 and deviation 1."""
    waves = _brain_waves(source.random, source.count, 100 * (frames + 3), 200.0)
    decibels = _log_power(waves, 200, 100, frames)[..., 1 : bins + 1]
    normal = (decibels - decibels.mean(1, keepdims=True)) / (decibels.std(1, keepdims=True) + 1e-6)
    return {name: np.ascontiguousarray(normal.transpose(0, 2, 1))}


def eeg_and_wavelets(source: Source, *, samples: int, bands: int) -> Inputs:
    """30 seconds, and the magnitude of wavelets of 10 to 17 Hz along them."""
    waves = _brain_waves(source.random, source.count, samples, samples / 30)
    spectrum, frequency = np.fft.fft(waves), np.fft.fftfreq(samples, 30 / samples)
    centres = np.linspace(10, 17, bands)
    windows = np.exp(-0.5 * (frequency[None] - centres[:, None]) ** 2)
    power = np.abs(np.fft.ifft(spectrum[:, None] * windows[None]))
    power = (power - power.mean((1, 2), keepdims=True)) / power.std((1, 2), keepdims=True)
    return {"raw_signal": waves[:, None], "spectrogram": power.astype(np.float32)}
