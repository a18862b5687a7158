"""Writes chat.json, and the two small models chat-*.gguf: what llama.cpp makes of the models that EmbeddedChat reads.

    python3 -m venv /tmp/chat-venv
    /tmp/chat-venv/bin/pip install gguf==0.19.0 numpy==2.4.6 xllamacpp==2026.10.11549
    /tmp/chat-venv/bin/python crates/jm-engines/tests/references/chat.py

The models from the catalogue have to be there (`make models`), and 3 GB for a while. The small models have random weights: they are there for
the families, and the parts of them, that no model of the catalogue has.
"""

import json
import os
import pathlib
import tempfile
import urllib.request

import gguf
import numpy
import xllamacpp

HERE = pathlib.Path(__file__).parent
CACHE = pathlib.Path(os.environ.get("JM_MQ_CACHE", pathlib.Path.home() / ".cache/jm-mq")) / "models"
MODELS = {
    "smollm2-135m-instruct": CACHE / "smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf",
    "qwen2.5-coder-0.5b-instruct": CACHE / "qwen2.5-coder-0.5b-instruct/qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
    "qwen3": HERE / "chat-qwen3.gguf",
    "llama3": HERE / "chat-llama3.gguf",
}
TEXTS = [
    "Hello, world!",
    " leading and trailing space ",
    "It's what we'LL say: they've 1234567 ways.",
    "line one\nline two\r\n\r\n\tindented\n\n\n",
    "a    b  \n   c",
    "我们周一开会讨论了发布计划，决定改到周四。",
    "混合 mixed 文字 with English，以及 2026 年 10 月 ５ 日",
    "😀👩‍👩‍👧🏳️‍🌈 emoji 🇨🇳",
    "fn main() { println!(\"{}\", x[0] + 1); } // done",
    "naïve café, Übermäßig, Привет, ١٢٣, ½ ² Ⅷ",
    "x",
    "    ",
    "\u00a0\u3000\u200b",
    "----------====== ...!!!",
    "snake_case camelCase HTTPServer2 v1.2.3",
]
CONVERSATIONS = [
    [["user", "What is the capital of France?"]],
    [["system", "You summarise notes."], ["user", "  We met on Monday.\n\nAda tells the customers. "]],
    [["user", "你好"], ["assistant", "你好！"], ["user", "😀"]],
]
PROMPTS = [
    "The capital of France is",
    "Once upon a time, there was a little",
    "1, 2, 3, 4, 5, 6, 7,",
    "def add(a, b):\n    return",
    "中国的首都是",
    # Longer than what is read at once.
    "We met on Monday, talked about the release and moved it to Thursday. Ada will tell the customers. " * 12,
]
TOP = 5


def write_model(path, family):
    """A model of 33 thousand random weights."""
    width, heads, key_heads, head_width, inner, layers = 32, 4, 2, 16, 64, 2
    random = numpy.random.default_rng(7)
    writer = gguf.GGUFWriter(path, "llama" if family == "llama3" else family)
    writer.add_context_length(2048)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(key_heads)
    writer.add_key_length(head_width)
    writer.add_value_length(head_width)
    writer.add_rope_freq_base(500000.0)
    writer.add_rope_dimension_count(head_width)
    writer.add_layer_norm_rms_eps(1e-6)

    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = [chr(byte) if byte in printable else chr(256 + others.index(byte)) for byte in range(256)]
    merges = ["t h", "th e", "Ġ the", "i n", "1 2", "12 3"]
    words = [merge.replace(" ", "") for merge in merges]
    control = ["<|im_start|>", "<|im_end|>"]
    tokens = [*letters, *words, *control]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe" if family == "llama3" else "qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL if token in control else gguf.TokenType.NORMAL for token in tokens])
    writer.add_token_merges(merges)
    writer.add_eos_token_id(len(tokens) - 1)
    writer.add_bos_token_id(len(tokens) - 2)
    writer.add_add_bos_token(False)

    # llama.cpp says nothing of a token that is half a character: those are made unlikely.
    likely = numpy.array([[0 if token.isascii() and token not in control else -4] for token in tokens])

    def add(name, *shape, exponent=0):
        """Whole numbers to 127 times a power of two: exact in 8 bits as in 16."""
        codes = numpy.clip(numpy.round(random.standard_normal(shape) * 40), -127, 127)
        largest = numpy.arange(shape[0]), random.integers(0, 32, shape[0])
        for block in range(0, shape[1], 32):
            codes[largest[0], block + largest[1]] = 127
        weights = codes * 2.0 ** (exponent - 8)
        writer.add_tensor(name, weights.astype(numpy.float16))

    def add_norm(name, length):
        writer.add_tensor(name, (1 + 0.3 * random.standard_normal(length)).astype(numpy.float32))

    add("token_embd.weight", len(tokens), width, exponent=2 + likely)
    add_norm("output_norm.weight", width)
    if family == "llama3":
        add("output.weight", len(tokens), width, exponent=2 + likely)
        writer.add_tensor("rope_freqs.weight", numpy.linspace(1, 32, head_width // 2, dtype=numpy.float32))
    for layer in range(layers):
        block = f"blk.{layer}."
        add_norm(block + "attn_norm.weight", width)
        add_norm(block + "ffn_norm.weight", width)
        add(block + "attn_q.weight", heads * head_width, width, exponent=1)
        add(block + "attn_k.weight", key_heads * head_width, width, exponent=1)
        add(block + "attn_v.weight", key_heads * head_width, width)
        add(block + "attn_output.weight", width, heads * head_width)
        if family == "qwen3":
            add_norm(block + "attn_q_norm.weight", head_width)
            add_norm(block + "attn_k_norm.weight", head_width)
        add(block + "ffn_gate.weight", inner, width, exponent=1)
        add(block + "ffn_up.weight", inner, width, exponent=1)
        add(block + "ffn_down.weight", width, inner)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_exact(path, quantised):
    """The same weights in 32 bits, with which llama.cpp computes in 32 bits."""
    reader = gguf.GGUFReader(quantised)
    writer = gguf.GGUFWriter(path, reader.fields["general.architecture"].contents(), use_temp_file=True)
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            writer.add_key_value(name, field.contents(), field.types[0], field.types[-1] if len(field.types) > 1 else None)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, gguf.dequantize(tensor.data, tensor.tensor_type))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class Server:
    """llama.cpp with one model, as exact as it can be."""

    def __init__(self, path, port):
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_ctx = 2048
        params.n_parallel = 1
        params.warmup = False
        params.port = port
        params.use_jinja = True
        params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self.server = xllamacpp.Server(params)

    def post(self, path, body):
        request = urllib.request.Request(
            self.server.listening_address + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

    def tokens(self, text, special=False):
        return self.post("/tokenize", {"content": text, "add_special": False, "parse_special": special})["tokens"]

    def prompt(self, conversation):
        messages = [{"role": role, "content": content} for role, content in conversation]
        return self.tokens(self.post("/apply-template", {"messages": messages})["prompt"], special=True)

    def next(self, tokens):
        body = {"prompt": tokens, "n_predict": 1, "n_probs": TOP, "temperature": 0, "cache_prompt": False}
        likeliest = self.post("/completion", body)["completion_probabilities"][0]["top_logprobs"]
        return [[token["id"], round(token["logprob"], 4)] for token in likeliest]


def reference(path, port):
    with tempfile.TemporaryDirectory() as folder:
        exact = pathlib.Path(folder) / "exact.gguf"
        write_exact(exact, path)
        server = Server(exact, port)
    prompts = [prompt[:400] if path.parent == HERE else prompt for prompt in PROMPTS]
    return {
        "texts": [{"text": text, "tokens": server.tokens(text)} for text in TEXTS],
        "conversations": [
            {"messages": conversation, "tokens": server.prompt(conversation)} for conversation in CONVERSATIONS
        ],
        "next": [{"text": prompt, "likeliest": server.next(server.tokens(prompt))} for prompt in prompts],
    }


def lines(value, levels):
    """JSON with a line for each thing on these levels."""
    if levels == 0:
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, dict):
        return "{\n" + ",\n".join(f"{json.dumps(key)}: {lines(each, levels - 1)}" for key, each in value.items()) + "\n}"
    return "[\n" + ",\n".join(lines(each, levels - 1) for each in value) + "\n]"


def main():
    write_model(MODELS["qwen3"], "qwen3")
    write_model(MODELS["llama3"], "llama3")
    models = {name: reference(path, 18181 + port) for port, (name, path) in enumerate(MODELS.items())}
    (HERE / "chat.json").write_text(lines(models, 3) + "\n")


main()
