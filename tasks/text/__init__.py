"""Text in: corpora, tokenizers, token records."""
