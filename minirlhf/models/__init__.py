"""Networks: loading and saving, a language model as trunk and head, log-probabilities, kernels."""

from minirlhf.hub.configs import load_tokenizer as load_tokenizer  # beside `load_policy`, for who trains by hand
