"""Images per second of one pretraining step (forward, backward, optimiser): this library's MAE against Hugging Face's.

    python -m tests.benchmarks.pretrain_throughput [--preset lite] [--repeats 7] [--steps 3] [--compile]

Both get the same widths, depths, patch, image size, mask ratio, batch, precision and optimiser, and images that are on
the device already; their repeats take turns in one process, and medians are compared. On a CPU a step in bfloat16 is
also compared with Hugging Face's in float32, what one would run there otherwise. The last line is one JSON object.
Hugging Face's model has a class token that ours does not have: one token more in both its encoder and its decoder.
On CUDA also the share of the device's peak that the model's own matrix products reach.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from raymae.models.mae import Encoder, MaskedAutoencoder, PatchEmbedding
from raymae.models.masking import num_visible, random_mask
from raymae.models.tokens import TokenGrid
from raymae.train.optim import make_optimiser

# dense bfloat16 and TF32 FLOP/s, from NVIDIA's data sheets
PEAKS = {"H100": (989e12, 494e12), "H200": (989e12, 494e12), "A100": (312e12, 156e12)}


@dataclass(frozen=True)
class Shape:
    """The network and the batch of one comparison."""

    image_size: int
    patch_size: int
    batch: int
    encoder_dim: int
    encoder_depth: int
    encoder_heads: int
    mlp: int
    decoder_dim: int
    decoder_depth: int
    decoder_heads: int
    mask_ratio: float = 0.75

    @property
    def num_tokens(self) -> int:
        return (self.image_size // self.patch_size) ** 2

    @property
    def num_visible(self) -> int:
        return num_visible(self.num_tokens, self.mask_ratio)

    def flops(self) -> float:
        """Of one image's step: its matrix products, and twice as many backward."""
        def blocks(tokens: int, dim: int, mlp: int, depth: int) -> float:
            return depth * (2 * tokens * (4 * dim**2 + 2 * dim * mlp) + 4 * tokens**2 * dim)

        values = 3 * self.patch_size**2
        forward = blocks(self.num_visible, self.encoder_dim, self.mlp, self.encoder_depth)
        forward += blocks(self.num_tokens, self.decoder_dim, 4 * self.decoder_dim, self.decoder_depth)
        forward += 2 * self.num_visible * self.encoder_dim * (values + self.decoder_dim)
        forward += 2 * self.num_tokens * self.decoder_dim * values
        return 3 * forward


PRESETS = {
    "debug": Shape(32, 8, 16, 32, 1, 2, 128, 32, 1, 2),
    "lite": Shape(64, 8, 64, 192, 9, 6, 768, 128, 2, 4),
    "lite4": Shape(64, 4, 32, 192, 9, 6, 768, 128, 2, 4),
    "base": Shape(64, 4, 256, 768, 12, 12, 3072, 512, 8, 16),  # the report's ViT-B/4
}


def ours(
    shape: Shape, device: torch.device, half: bool, compiled: bool
) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    """The library's model, and its loss of images."""
    grid = TokenGrid((shape.image_size,) * 2, (shape.patch_size,) * 2, 3)
    encoder = Encoder(
        PatchEmbedding(grid.token_dim, grid.shape, shape.encoder_dim), depth=shape.encoder_depth,
        heads=shape.encoder_heads, mlp_ratio=shape.mlp / shape.encoder_dim,
    )
    model = MaskedAutoencoder(
        encoder, grid.shape, decoder_dim=shape.decoder_dim, decoder_depth=shape.decoder_depth,
        decoder_heads=shape.decoder_heads, norm_target=True,
    ).to(device)
    if compiled:
        model.compile()
    generator = torch.Generator(device).manual_seed(0)

    def loss(images: Tensor) -> Tensor:
        hidden = random_mask(len(images), grid.num_tokens, shape.mask_ratio, generator)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=half):
            return model.loss(grid.patchify(images), hidden, num_visible=shape.num_visible)

    return model, loss


def theirs(
    shape: Shape, device: torch.device, half: bool, compiled: bool
) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    """`transformers.ViTMAEForPreTraining` of the same shape, with scaled-dot-product attention, its default."""
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    model = ViTMAEForPreTraining(ViTMAEConfig(
        image_size=shape.image_size, patch_size=shape.patch_size, hidden_size=shape.encoder_dim,
        num_hidden_layers=shape.encoder_depth, num_attention_heads=shape.encoder_heads, intermediate_size=shape.mlp,
        decoder_hidden_size=shape.decoder_dim, decoder_num_hidden_layers=shape.decoder_depth,
        decoder_num_attention_heads=shape.decoder_heads, decoder_intermediate_size=4 * shape.decoder_dim,
        mask_ratio=shape.mask_ratio, norm_pix_loss=True, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        attn_implementation="sdpa",
    )).to(device).train()
    if compiled:
        model.compile()

    def loss(images: Tensor) -> Tensor:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=half):
            return model(images).loss

    return model, loss


def stepper(model: nn.Module, loss: Callable[[Tensor], Tensor], images: Tensor) -> Callable[[], None]:
    optimiser = make_optimiser(model, lr=1e-4, weight_decay=0.05, layer_decay=1.0, betas=(0.9, 0.95))

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        loss(images).backward()
        optimiser.step()

    return step


def measure(shape: Shape, device: torch.device, precision: str, *, repeats: int, steps: int, compiled: bool,
            peak: float | None) -> dict[str, object]:
    """Medians of interleaved repeats."""
    half = precision == "bfloat16"
    torch.manual_seed(0)
    images = torch.randn(shape.batch, 3, shape.image_size, shape.image_size, device=device)
    built = {"ours": ours(shape, device, half, compiled), "theirs": theirs(shape, device, half, compiled)}
    if half and device.type == "cpu":
        built["theirs_float32"] = theirs(shape, device, False, compiled)
    sizes = {name: sum(p.numel() for p in model.parameters() if p.requires_grad) for name, (model, _) in built.items()}
    step = {name: stepper(model, loss, images) for name, (model, loss) in built.items()}
    seconds: dict[str, list[float]] = {name: [] for name in step}
    for _ in range(3):
        for run in step.values():
            run()
    for index in range(repeats):
        for name in sorted(step, reverse=bool(index % 2)):
            synchronise(device)
            started = time.perf_counter()
            for _ in range(steps):
                step[name]()
            synchronise(device)
            seconds[name].append((time.perf_counter() - started) / steps)
    rate = {name: shape.batch / statistics.median(times) for name, times in seconds.items()}
    row: dict[str, object] = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu", "precision": precision,
        "compiled": compiled, "threads": torch.get_num_threads(), **asdict(shape), "num_parameters": sizes,
        "images_per_s": rate, "ratio": rate["ours"] / rate["theirs"],
        "spread": {name: max(times) / min(times) for name, times in seconds.items()},
        "achieved_gflops": rate["ours"] * shape.flops() / 1e9,
    }
    if "theirs_float32" in rate:
        row["ratio_to_float32"] = rate["ours"] / rate["theirs_float32"]
    if peak:
        row["share_of_peak"] = rate["ours"] * shape.flops() / peak
    return row


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def known_peak(device: torch.device, precision: str) -> float | None:
    """The device's dense peak, where it is known."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    found = next((peaks for key, peaks in PEAKS.items() if key in name), None)
    return found[precision == "float32"] if found else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", nargs="+", choices=PRESETS, help="lite and lite4 on a CPU, base on CUDA by default")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="both, where there is CUDA, by default")
    parser.add_argument("--precision", nargs="+", choices=["float32", "bfloat16"], default=["float32", "bfloat16"])
    parser.add_argument("--batch", type=int, help="images per step, instead of the preset's")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--steps", type=int, default=3, help="steps per repeat")
    parser.add_argument("--compile", action="store_true", help="torch.compile both")
    parser.add_argument("--peak", type=float, help="the device's peak in FLOP/s, where it is not known here")
    arguments = parser.parse_args()
    kinds = [arguments.device] if arguments.device else ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    rows = []
    for kind in kinds:
        device = torch.device(kind)
        for name in arguments.preset or (["lite", "lite4"] if kind == "cpu" else ["base"]):
            shape = PRESETS[name]
            if arguments.batch:
                shape = Shape(**{**asdict(shape), "batch": arguments.batch})
            for precision in arguments.precision if kind == "cpu" else ["bfloat16"]:
                row = measure(shape, device, precision, repeats=arguments.repeats, steps=arguments.steps,
                              compiled=arguments.compile, peak=arguments.peak or known_peak(device, precision))
                rate: dict[str, float] = row["images_per_s"]  # type: ignore[assignment]
                peak = f", {row['share_of_peak']:.1%} of peak" if "share_of_peak" in row else ""
                peak += f", {row['ratio_to_float32']:.2f} to its float32" if "ratio_to_float32" in row else ""
                print(f"{row['device']} {precision} {name}: {rate['ours']:.1f} images/s, Hugging Face "
                      f"{rate['theirs']:.1f}, ratio {row['ratio']:.2f}{peak}", flush=True)
                rows.append({"preset": name, **row})
    print(json.dumps({"benchmark": "pretrain_throughput", "rows": rows}))


if __name__ == "__main__":
    main()
