"""Words and 3D tokens: vocabulary, tokenizers, prompts, coordinate bins, the answer grammar."""
