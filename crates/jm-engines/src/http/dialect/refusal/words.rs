//! Servers' words for the causes of errors.

/// Why a server refused a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The text is longer than the model reads, or the request larger than the server takes.
    TooLong,
    /// The server's rules forbid the text.
    Content,
    /// Something else about the request.
    Message,
    /// There is no such API at this address.
    Address,
    /// The key is missing, wrong, or not allowed to do this.
    Key,
    /// There is no such model here.
    Model,
    /// The account has no money or quota left.
    Account,
    /// The server, or the account's limit per minute, has no room at this moment.
    Capacity,
    /// The server itself failed, or something between.
    Unknown,
}

/// A text of more tokens than the model reads: OpenAI, vLLM, Xinference, `SGLang`, llama.cpp, Ollama, `DashScope`, Moonshot,
/// Groq, Gemini, `LiteLLM`, TEI, Mistral, Anthropic.
const TOO_LONG: &[&str] = &[
    "context_length_exceeded",
    "exceed_context_size",
    "contextwindowexceeded",
    "maximum context length",
    "maximum model length",
    "max_model_len",
    "model's context length",
    "model's maximum",
    "context window",
    "context size",
    "context length",
    "maximum sequence length",
    "max_seq_len",
    "range of input length",
    "input length should be",
    "model token limit",
    "token count exceeds",
    "exceeds the maximum number of tokens",
    "exceeds max length",
    "too many tokens",
    "too many input tokens",
    "must have less than",
    "prompt is too long",
    "prompt too long",
    "input is too long",
    "input too long",
    "inputs too long",
    "text is too long",
    "string_above_max_length",
    "string too long",
    "reduce the length",
    "reduce your prompt",
    "reduce your message size",
    "request too large",
    "must be reduced",
    "input length exceeds",
    "maximum allowed input length",
    "token limit exceeded",
    "tokens_limit_reached",
    "max_prompt_tokens",
    "too large for model",
    "上下文长度",
    "输入长度",
    "长度超过",
    "超长",
];
/// A pair that says the same: `The input token count (5021) exceeds the maximum …`, `Input length 5021 exceeds … 4096`.
const TOO_LONG_PAIRS: &[(&str, &str)] = &[
    ("token", "exceed"),
    ("input", "longer than"),
    ("prompt", "longer than"),
    ("input length", "exceed"),
    ("tokens", "longer than"),
    ("prompt length", "exceed"),
    ("sequence", "exceed"),
];
/// The request's limit for the answer.
const OWN_LIMIT: &[&str] = &["max_tokens", "max_completion_tokens", "max_new_tokens"];
/// Texts that the server's rules forbid: OpenAI, Azure, `DashScope`, Zhipu, `OpenRouter`, Gemini.
const CONTENT: &[&str] = &[
    "content_filter",
    "content_policy",
    "contentpolicy",
    "content policy",
    "content management policy",
    "responsibleaipolicy",
    "data_inspection_failed",
    "datainspectionfailed",
    "inappropriate content",
    "prohibited_content",
    "sensitive content",
    "content risk",
    "unsafe content",
    "flagged",
    "moderation",
    "敏感",
    "违规",
    "不安全",
];
/// An account without money or quota: OpenAI, `DeepSeek`, `DashScope`, Moonshot, Zhipu, `OpenRouter`.
const ACCOUNT: &[&str] = &[
    "insufficient_quota",
    "insufficient quota",
    "insufficient balance",
    "insufficient_balance",
    "insufficient credits",
    "current quota",
    "current_quota",
    "check your plan and billing",
    "billing",
    "arrearage",
    "overdue",
    "payment required",
    "out of credits",
    "free tier of the model has been exhausted",
    "allocationquota",
    "account is not active",
    "account_deactivated",
    "欠费",
    "余额不足",
];
const KEY: &[&str] = &[
    "invalid_api_key",
    "invalid api key",
    "invalid api-key",
    "api key not valid",
    "api_key_invalid",
    "api key expired",
    "incorrect api key",
    "invalidapikey",
    "authentication",
    "unauthorized",
    "permission denied",
    "access denied",
];
const MODEL: &[&str] = &[
    "model_not_found",
    "modelnotfound",
    "model not found",
    "model not exist",
    "model_not_exist",
    "unknown model",
    "invalid model",
    "model_decommissioned",
    "is not a valid model",
    "no such model",
    "not a chat model",
    "does not support chat",
    "is not supported by any provider",
    "no endpoints found",
    "model is not supported",
    "not support embeddings",
    "模型不存在",
];
/// A pair that says the same: ``The model `x` does not exist``, `model "x" not found, try pulling it first`.
const MODEL_PAIRS: &[(&str, &str)] = &[("model", "does not exist"), ("model", "not found"), ("models/", "not found")];
const CAPACITY: &[&str] = &[
    "overloaded",
    "rate limit",
    "rate_limit",
    "ratelimit",
    "too many requests",
    "too many concurrent",
    "throttling",
    "at capacity",
    "no available capacity",
    "queue is full",
    "queue full",
    "server is busy",
    "server busy",
    "model is busy",
    "resource_exhausted",
    "resource exhausted",
    "no slot available",
    "no deployments available",
    "访问量过大",
    "请求过多",
];

/// The cause of an error, by its status and what the server said in lower case. `waits`: whether it named a wait.
///
/// | status | cause |
/// |---|---|
/// | 3xx | the address: redirects are not followed |
/// | 400, 422 and others | by the words; the message, where they say nothing |
/// | 401, 407 | the key |
/// | 402 | the account |
/// | 403 | the key; a text that is forbidden, if the words say so |
/// | 404, 405, 501 | the model, if the words name it, or the address |
/// | 408, 409, 424, 425, 498, 499 | the server or what is between |
/// | 413 | too long |
/// | 429 | capacity; an empty account or too large a request, if the words say so |
/// | 503 and other 5xx | capacity, if the server names a wait (503, 529) or says that it is overloaded; else the server |
#[expect(clippy::match_same_arms, reason = "a line for each status, as in the table")]
pub(super) fn cause(status: u16, said: &str, waits: bool) -> Cause {
    let says = |words: &[&str]| words.iter().any(|word| said.contains(word));
    let pairs = |pairs: &[(&str, &str)]| pairs.iter().any(|(one, other)| said.contains(one) && said.contains(other));
    // `max_tokens 8192 exceeds …` is about the request's own limit, unless the context is named as well.
    let too_long = || says(TOO_LONG) || pairs(TOO_LONG_PAIRS) && !says(OWN_LIMIT);
    let model = || says(MODEL) || pairs(MODEL_PAIRS);
    match status {
        300..=399 => Cause::Address,
        401 | 407 => Cause::Key,
        402 => Cause::Account,
        403 if says(CONTENT) => Cause::Content,
        403 if says(ACCOUNT) => Cause::Account,
        403 if model() => Cause::Model,
        403 => Cause::Key,
        404 | 405 | 501 if model() => Cause::Model,
        404 | 405 | 501 => Cause::Address,
        408 | 409 | 424 | 425 | 498 | 499 => Cause::Unknown,
        413 => Cause::TooLong,
        429 if says(ACCOUNT) => Cause::Account,
        429 if said.contains("request too large") || said.contains("must be reduced") => Cause::TooLong,
        429 => Cause::Capacity,
        400..=499 => match () {
            () if says(ACCOUNT) => Cause::Account,
            () if says(KEY) => Cause::Key,
            () if says(CONTENT) => Cause::Content,
            () if too_long() => Cause::TooLong,
            () if model() => Cause::Model,
            () if says(CAPACITY) => Cause::Capacity,
            () => Cause::Message,
        },
        503 | 529 if waits => Cause::Capacity,
        // Some gateways wrap every error of the server behind them into one of their own.
        500..=599 if says(ACCOUNT) => Cause::Account,
        500..=599 if says(TOO_LONG) => Cause::TooLong,
        500..=599 if says(CAPACITY) => Cause::Capacity,
        _ => Cause::Unknown,
    }
}

impl Cause {
    /// What to do about it, for whoever reads the error.
    pub(super) fn remedy(self) -> &'static str {
        match self {
            Self::TooLong => {
                "longer than the model reads, or larger than the server takes: send less, or raise the server's limit"
            }
            Self::Content => "the server's content rules refuse the text",
            Self::Address => "check engine.base_url and engine.model",
            Self::Key => "check engine.api_key and what it is allowed to do",
            Self::Model => "check engine.model: the server does not offer it",
            Self::Account => "the account has no credit or quota left: top it up, or use another key",
            Self::Message | Self::Capacity | Self::Unknown => "",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_its_cause() {
        for status in 300..=599 {
            let expected = match status {
                300..=399 | 404 | 405 | 501 => Cause::Address,
                401 | 403 | 407 => Cause::Key,
                402 => Cause::Account,
                408 | 409 | 424 | 425 | 498 | 499 => Cause::Unknown,
                413 => Cause::TooLong,
                429 => Cause::Capacity,
                400..=499 => Cause::Message,
                _ => Cause::Unknown,
            };
            assert_eq!(cause(status, "", false), expected, "{status}");
        }
        assert_eq!((cause(503, "", true), cause(500, "", true)), (Cause::Capacity, Cause::Unknown));
    }

    #[test]
    fn the_words_decide_where_the_status_does_not() {
        for (status, said, expected) in [
            (400, "your account is in arrearage", Cause::Account),
            (400, "api key not valid. please pass a valid api key.", Cause::Key),
            (400, "the model `x` does not exist", Cause::Model),
            (404, "model \"x\" not found, try pulling it first", Cause::Model),
            (403, "the input was flagged", Cause::Content),
            (429, "you exceeded your current quota, please check your plan and billing details", Cause::Account),
            (429, "request too large for gpt-4o: limit 30000, requested 40000", Cause::TooLong),
            (500, "litellm.contextwindowexceedederror: …", Cause::TooLong),
            (503, "loading model", Cause::Unknown),
            (529, "overloaded_error", Cause::Capacity),
            (500, "the engine is currently overloaded", Cause::Capacity),
        ] {
            assert_eq!(cause(status, said, false), expected, "{status} {said}");
        }
    }
}
