"""Inputs of language networks: sentences and names as the numbers of their letters or pieces."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from tests.benchmarks.networks.source import Inputs, Source

KHMER = "ខ្ញុំចង់ទៅផ្សារដើម្បីទិញបន្លែនិងផ្លែឈើសម្រាប់គ្រួសាររបស់ខ្ញុំនៅថ្ងៃនេះព្រោះថាម្តាយខ្ញុំនឹងធ្វើម្ហូបឆ្ងាញ់"
CHINESE = "今天下午我和朋友在北京大学图书馆看书然后我们一起去附近的饭店吃饭天气很好大家都很高兴"
ARABIC = "ذهب الولد الى المدرسة في الصباح وكتب الدرس ثم عاد الى البيت وقرا كتابا جميلا عن تاريخ المدينة القديمة"
NAMES = "محمد احمد فاطمة خالد يوسف مريم حسين ابراهيم عبدالله سارة نورة سعيد طارق ليلى جمال كريم"
RUSSIAN = "переподготовка учитель водопровод подоконник безграмотный лесной пароход дочитать бесконечность самолёт"
ENGLISH = "memory crossbar analog device array current voltage weight neuron signal image learning measured energy"
TITLES = ("Fix the failing login test after the database upgrade", "Write a parser for the new configuration files")


def _numbers(path: Path, *keys: str) -> dict[str, int]:
    """A table of letters in a JSON file: an object of numbers, or a list in order."""
    table = json.loads(path.read_text(encoding="utf-8"))
    for key in keys:
        table = table[key]
    return dict(table) if isinstance(table, dict) else {letter: index for index, letter in enumerate(table)}


def _windows(text: str, source: Source, length: int, numbers: dict[str, int], unknown: int) -> NDArray[np.int64]:
    """`count` windows of a text that repeats, as numbers."""
    starts = source.random.integers(0, len(text), source.count)
    long = text * (2 + length // len(text))
    return np.array([[numbers.get(letter, unknown) for letter in long[start : start + length]] for start in starts])


def khmer(source: Source, *, length: int) -> Inputs:
    """Khmer letters and a mask of which are there."""
    numbers = _numbers(next(source.package.rglob("khmersm/config.json")), "char2id")
    tokens = _windows(KHMER, source, length, numbers, 1)
    return {"x": tokens, "mask": np.ones(tokens.shape, bool)}


def chinese(source: Source, *, length: int) -> Inputs:
    """Chinese letters by the package's own list, and the length."""
    lines = next(source.package.rglob("word.dic")).read_text(encoding="utf-8").splitlines()
    numbers = {letter: int(number) for number, _, letter in (line.partition("\t") for line in lines)}
    tokens = _windows(CHINESE, source, length, numbers, numbers["OOV"])
    return {"token_ids": tokens, "length": np.full(source.count, length)}


def arabic(source: Source, *, name: str, length: int) -> Inputs:
    """Arabic letters without marks."""
    numbers = _numbers(next(source.package.rglob("rawi.vocab.json")), "char_to_idx")
    return {name: _windows(ARABIC, source, length, numbers, 1)}


def _names(source: Source, length: int) -> NDArray[np.int64]:
    """Names with an end each, 0 where there is no letter."""
    numbers = _numbers(next(source.package.rglob("resources/vocab.json")), "tokens")
    tokens = np.zeros((source.count, length), np.int64)
    for row, name in zip(tokens, source.random.choice(NAMES.split(), source.count), strict=True):
        letters = [*(numbers[letter] for letter in name[: length - 1]), numbers["<EOS>"]]
        row[: len(letters)] = letters
    return tokens


def arabic_names(source: Source, *, length: int) -> Inputs:
    """Names and which letters are there."""
    tokens = _names(source, length)
    return {"src": tokens, "src_mask": tokens > 0}


def arabic_name_prefixes(source: Source, *, length: int) -> Inputs:
    """What the package's own encoder makes of names, and three letters to go on from."""
    tokens = _names(source, length)
    encoder = onnxruntime.InferenceSession(str(next(source.package.rglob("resources/encoder.onnx"))))
    memory, mask, hidden = encoder.run(None, {"src": tokens, "src_mask": tokens > 0})
    prefix = np.concatenate(
        [np.ones((source.count, 1), np.int64), source.random.integers(33, 85, (source.count, 3))], 1
    )
    return {"prefix": prefix, "memory": memory, "src_mask": mask, "hidden": hidden}


def russian_words(source: Source, *, length: int) -> Inputs:
    """Words as numbers of their letters in the alphabet, 0 where there is none."""
    tokens = np.zeros((source.count, length), np.int32)
    for row, word in zip(tokens, source.random.choice(RUSSIAN.split(), source.count), strict=True):
        letters = [1 + ord(letter) - ord("а") for letter in word.replace("ё", "е")][:length]
        row[: len(letters)] = letters
    return {"input_layer": tokens}


def one_hot_words(source: Source, *, name: str, length: int, letters: int) -> Inputs:
    """Words of one length, each letter a 1 among `letters`."""
    words = [(word * 3)[:length] for word in source.random.choice(ENGLISH.split(), source.count)]
    numbers = np.array([[(ord(letter) - ord("a")) % letters for letter in word] for word in words])
    return {name: np.eye(letters, dtype=np.float32)[numbers]}


def word_pieces(source: Source, *, length: int) -> Inputs:
    """Numbers drawn among the words of BERT's list, which the package lacks, within its marks; half are shorter."""
    tokens = source.random.integers(1996, 10_000, (source.count, length))
    tokens[:, 0], tokens[:, -1] = 101, 102
    mask = np.ones_like(tokens)
    mask[::2, length * 3 // 4 :] = 0
    tokens[::2, length * 3 // 4 - 1] = 102
    return {"input_ids": tokens * mask, "attention_mask": mask, "token_type_ids": np.zeros_like(tokens)}


def title_tokens(source: Source, *, length: int) -> Inputs:
    """Sentences in the package's own pieces, the longest that fits first."""
    vocabulary = json.loads(next(source.package.rglob("tokenizer.json")).read_text(encoding="utf-8"))["model"]["vocab"]
    numbers = {piece: index for index, (piece, _) in enumerate(vocabulary)}
    tokens, mask = np.zeros((2, source.count, length), np.int64)
    for index in range(source.count):
        pieces = [*_pieces("▁" + TITLES[index % len(TITLES)].replace(" ", "▁"), numbers), 1][-length:]
        tokens[index, : len(pieces)], mask[index, : len(pieces)] = pieces, 1
    return {"input_ids": tokens, "attention_mask": mask}


def _pieces(text: str, numbers: dict[str, int]) -> list[int]:
    found = []
    while text:
        size = next((size for size in range(len(text), 0, -1) if text[:size] in numbers), 1)
        found.append(numbers.get(text[:size], 2))
        text = text[size:]
    return found


def title_prefixes(source: Source, *, length: int, prefix: int) -> Inputs:
    """What the package's own encoder makes of sentences, and the first pieces of an answer."""
    tokens = title_tokens(source, length=length)
    encoder = onnxruntime.InferenceSession(str(next(source.package.rglob("span/encoder.onnx"))))
    answer = np.concatenate([np.zeros((source.count, 1), np.int64), tokens["input_ids"][:, : prefix - 1]], 1)
    return {
        "input_ids": answer,
        "encoder_hidden_states": encoder.run(None, dict(tokens))[0],
        "encoder_attention_mask": tokens["attention_mask"],
    }
