"""SAM 2 and Grounding DINO in miniature: transformers' own code, random weights."""

import torch

SAM2_SIDE_PX = 128  # 1024 in SAM 2


def save_sam2(folder):
    """Write a SAM 2 of 0.1 million weights in transformers' format."""
    from transformers import (
        Sam2Config,
        Sam2HieraDetConfig,
        Sam2MaskDecoderConfig,
        Sam2Model,
        Sam2PromptEncoderConfig,
        Sam2VisionConfig,
    )

    backbone = Sam2HieraDetConfig(
        hidden_size=8,
        image_size=[SAM2_SIDE_PX, SAM2_SIDE_PX],
        blocks_per_stage=[1, 1, 2, 1],
        embed_dim_per_stage=[8, 16, 32, 64],
        num_attention_heads_per_stage=[1, 1, 1, 1],
        global_attention_blocks=[3],
        window_size_per_stage=[4, 4, 4, 4],
    )
    vision = Sam2VisionConfig(
        backbone_config=backbone,
        backbone_channel_list=[64, 32, 16, 8],
        backbone_feature_sizes=[[SAM2_SIDE_PX // step] * 2 for step in (4, 8, 16)],
        fpn_hidden_size=32,
    )
    prompts = Sam2PromptEncoderConfig(hidden_size=32, image_size=SAM2_SIDE_PX)
    decoder = Sam2MaskDecoderConfig(
        hidden_size=32, mlp_dim=32, num_attention_heads=2, iou_head_hidden_dim=32
    )
    torch.manual_seed(0)
    Sam2Model(
        Sam2Config(vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=decoder)
    ).save_pretrained(folder)


def save_grounding_dino(folder, words):
    """Write a Grounding DINO of 0.2 million weights that knows these words, and its helpers.

    The ids of [CLS], [SEP], the full stop and the question mark are part of transformers' code.
    """
    from transformers import (
        BertConfig,
        BertTokenizer,
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        GroundingDinoImageProcessorPil,
        SwinConfig,
    )

    vocabulary = [f"[unused{number}]" for number in range(1030)] + list(words)
    signs = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]"}
    for number, sign in (signs | {1012: ".", 1029: "?"}).items():
        vocabulary[number] = sign
    config = GroundingDinoConfig(
        backbone_config=SwinConfig(
            embed_dim=8,
            depths=[1, 1, 1, 1],
            num_heads=[1, 1, 1, 1],
            window_size=4,
            image_size=64,
            out_indices=[2, 3, 4],
        ),
        text_config=BertConfig(
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            vocab_size=len(vocabulary),
        ),
        num_queries=20,
        encoder_layers=1,
        decoder_layers=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        d_model=32,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        max_text_len=32,
    )
    torch.manual_seed(0)
    GroundingDinoForObjectDetection(config).save_pretrained(folder)
    GroundingDinoImageProcessorPil(size={"shortest_edge": 64, "longest_edge": 128}).save_pretrained(
        folder
    )
    words_file = folder / "vocab.txt"
    words_file.write_text("\n".join(vocabulary) + "\n")
    BertTokenizer(str(words_file)).save_pretrained(folder)
