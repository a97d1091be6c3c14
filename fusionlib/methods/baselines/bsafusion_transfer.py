"""BSAFusion's second part: a vision transformer that removes the difference of modality from two images' features.

A classifier learns to distinguish MRI from the other modality; its class token of one image is added to every token of
the other. A second classifier, `modal_dis`, should find no difference afterwards; it is used in training only.

Two surprises of the published code are kept, since its weights would belong to them: both halves of a transformer block
share one LayerNorm, and the transferred tokens come out one place late (see `Transfer`).

Convention: semantics (B, 3, S, S); tokens (B, N, 256) of patches of 16 x 16 pixels, row by row; maps (B, 256, S/16,
S/16).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusionlib.methods.baselines.token_transformer import named

WIDTH, HEADS, PATCH = 256, 4, 16


@dataclass(frozen=True)
class Transferred:
    """Deep features of both images.

    Attributes:
        feature1, feature2: without modality, to be registered; (B, 256, S/16, S/16).
        own1, own2: with it, to be fused; the same shape.
        logits1, logits2: the predicted modality of each image, (B, 2).
    """

    feature1: Tensor
    feature2: Tensor
    own1: Tensor
    own2: Tensor
    logits1: Tensor
    logits2: Tensor


class Transfer(nn.Module):
    """Semantics of both images to `Transferred`.

    A learned token is appended to each image's tokens, and after two blocks the first token is dropped, not the
    appended one: every place holds what belongs to the next, and the last one the appended token.
    """

    def __init__(self) -> None:
        super().__init__()
        self.transfer = Exchange()
        self.classifier = Classifier()
        self.modal_dis = Classifier()

    def forward(self, semantic1: Tensor, semantic2: Tensor) -> Transferred:
        (class1, own1), (class2, own2) = (self.classifier(semantic) for semantic in (semantic1, semantic2))
        features = self.transfer(own1 + class2[:, None], own2 + class1[:, None])
        maps = [tokens.mT.unflatten(2, (semantic1.shape[-2] // PATCH, -1)) for tokens in (*features, own1, own2)]
        return Transferred(*maps, self.classifier.head(class1), self.classifier.head(class2))

    def discriminate(self, feature: Tensor) -> Tensor:
        """Which modality a transferred feature (B, 256, h, w) still looks like: logits (B, 2), for training."""
        return self.modal_dis.head(self.modal_dis.summarise(feature.flatten(2).mT)[0])


class Exchange(nn.Module):
    """The transformer of each image on its tokens, each behind the appended token: (B, N, 256) twice to the same."""

    def __init__(self) -> None:
        super().__init__()
        self.cls1 = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.cls2 = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.VitBLK1 = blocks()
        self.VitBLK2 = blocks()

    def forward(self, tokens1: Tensor, tokens2: Tensor) -> tuple[Tensor, Tensor]:
        appended1 = torch.cat([tokens1, self.cls1.expand(len(tokens1), -1, -1)], 1)
        appended2 = torch.cat([tokens2, self.cls2.expand(len(tokens2), -1, -1)], 1)
        return self.VitBLK1(appended1)[:, 1:], self.VitBLK2(appended2)[:, 1:]


class Classifier(nn.Module):
    """A vision transformer that says which modality an image is: `forward` gives its class token and its patches'."""

    def __init__(self) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.embedding = Embedding()
        self.vit_blks = blocks()
        self.norm = nn.LayerNorm(WIDTH)  # never called upstream, but part of a checkpoint
        self.head = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, 2))

    def forward(self, semantic: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, S, S) to the class token (B, 256) and the tokens (B, N, 256)."""
        return self.summarise(self.embedding(semantic))

    def summarise(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (B, N, 256) to the class token (B, 256) and the tokens after they have seen each other."""
        encoded = self.vit_blks(torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], 1))
        return encoded[:, 0], encoded[:, 1:]


class Embedding(nn.Module):
    """Adds a learned picture of where things are, 256 x 256, resized to the image, and cuts into patches."""

    def __init__(self) -> None:
        super().__init__()
        self.position_embedding = nn.Parameter(torch.zeros(1, 1, 256, 256))
        self.patch_embedding = nn.Conv2d(3, WIDTH, PATCH, PATCH)

    def forward(self, semantic: Tensor) -> Tensor:
        """(B, 3, S, S) to (B, N, 256)."""
        place = F.interpolate(self.position_embedding, semantic.shape[-2:], mode="bilinear", align_corners=True)
        return self.patch_embedding(semantic + place).flatten(2).mT


def blocks() -> nn.Sequential:
    """Two transformer blocks on tokens (B, N, 256)."""
    return named(vit0=VitBlock(), vit1=VitBlock())


class VitBlock(nn.Module):
    """Attention and MLP with skips, both behind the same LayerNorm: (B, N, 256) to the same."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = SelfAttention()
        self.mlp = named(linear1=nn.Linear(WIDTH, WIDTH), gelu=nn.GELU(), linear2=nn.Linear(WIDTH, WIDTH))
        self.norm_layer1 = nn.LayerNorm(WIDTH)  # never called upstream, but part of a checkpoint
        self.norm_layer2 = nn.LayerNorm(WIDTH)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attention(self.norm_layer2(tokens))
        return tokens + self.mlp(self.norm_layer2(tokens))


class SelfAttention(nn.Module):
    """Attention of every token to every other, 4 heads of 64; in training a tenth of it is dropped."""

    def __init__(self) -> None:
        super().__init__()
        self.out_proj = nn.Linear(WIDTH, WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        query, key, value = self.qkv(tokens).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        dropped = 0.1 if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=dropped)  # (B, heads, N, 64)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))
