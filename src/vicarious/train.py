"""The one training loop: any number of independent members of one architecture, trained as one population.

On CUDA the members' weights are stacked and each update is one program over all of them, captured once as a graph; on
a CPU the same update visits the members in turn, on one thread a process.  Members share nothing but the clock:
initial weights, batches, gradient norms and optimiser moments are each member's own.

Shapes: P members, U updates, N rows of a batch.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state
from tqdm import tqdm

Loss = Callable[..., Tensor]  # loss(member, *its inputs) -> []
WARM_UP = 3  # updates before a CUDA graph is captured


def precision(device: torch.device | str) -> str:
    """`bf16` where the device multiplies bfloat16 natively, else `fp32`; VICARIOUS_PRECISION overrides it.

    With bf16, matrix products of the training loop take and give bfloat16 (autocast); weights, errors, their means, the
    optimiser and everything that is measured after training are float32.
    """
    chosen = os.environ.get("VICARIOUS_PRECISION", "auto")
    if chosen not in ("auto", "bf16", "fp32"):
        raise ValueError(f"VICARIOUS_PRECISION={chosen}: it is auto, bf16 or fp32")
    if chosen != "auto":
        return chosen
    if torch.device(device).type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    has = getattr(torch.cpu, "get_capabilities", dict)()
    return "bf16" if has.get("avx512_bf16") or has.get("amx_bf16") else "fp32"


def stacks(device: torch.device) -> bool:
    """Whether a population's weights are stacked there: on CUDA.  On one CPU thread stacking gains nothing."""
    return device.type == "cuda"


@contextlib.contextmanager
def evaluating(nets: Iterable[nn.Module] = ()) -> Iterator[None]:
    """These modules, and all that are called meanwhile, in evaluation mode; afterwards every part is as it was."""
    modes: dict[nn.Module, bool] = {}

    def settle(net: nn.Module, _: object = None) -> None:
        if getattr(net, "training", False):  # a frozen script has no mode
            for part in net.modules():
                modes.setdefault(part, part.training)
            net.eval()

    called = nn.modules.module.register_module_forward_pre_hook(settle)
    try:
        for net in nets:
            settle(net)
        yield
    finally:
        called.remove()
        for part, mode in modes.items():  # a whole before its parts, with what it does at a change of mode
            part.train(mode)
        for part, mode in modes.items():
            part.training = mode


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Arithmetic on one thread: on a CPU no result hangs on how many there are, and small networks train fastest."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@one_thread()
def fit(
    members: Sequence[nn.Module],
    loss: Loss,
    draw: Callable[[Tensor], Sequence[Sequence[Tensor]]],
    index: Tensor,
    rate: float | Mapping[str, float],
    weight_decay: float,
    clip: float = 1.0,
    constant: bool = False,
    scheduled: int | None = None,
    stacked: bool | None = None,
    at: Mapping[int, Callable[[], None]] | None = None,
    label: str = "",
    quiet: bool = True,
) -> None:
    """Train members in place by AdamW with a one-cycle (or constant) rate and each member's gradient clipped at `clip`.

    loss(member, *inputs) -> [].  index [U, P, N]: rows that each member sees in each update.  draw(index [P, N]) ->
    the inputs, one sequence of P tensors for each argument of `loss`.  rate: of the whole member, or of each of its
    children by name; these are then clipped each by itself, as if every one were trained alone.  scheduled: how many
    updates the one-cycle rate is laid out for, all by default.  stacked: one program over stacked weights (default on
    CUDA) or the members in turn.  at: what is called after so many updates, members as they are then.
    """
    device = next(members[0].parameters()).device
    stacked = stacks(device) if stacked is None else stacked
    rates = dict(rate) if isinstance(rate, Mapping) else {"": rate}
    objective = (_Stacked if stacked else _InTurn)(members, loss, rates)
    rows = torch.empty_like(index[0], device=device)
    amp = torch.autocast(device.type, torch.bfloat16, enabled=precision(device) == "bf16")

    def gradients() -> None:
        for parameter in objective.parameters:
            parameter.grad = None
        with amp:
            total = objective(draw(rows))
        total.backward()
        objective.clip_(clip)

    groups = [{"params": objective.part(name), "lr": rates[name]} for name in rates]
    optimiser = torch.optim.AdamW(groups, weight_decay=weight_decay, fused=True)
    schedule = (
        torch.optim.lr_scheduler.ConstantLR(optimiser, 1.0)
        if constant
        else torch.optim.lr_scheduler.OneCycleLR(optimiser, list(rates.values()), total_steps=scheduled or len(index))
    )
    index, replay = index.to(device), gradients
    for update in tqdm(range(len(index)), desc=label, disable=quiet or None):
        rows.copy_(index[update])
        if captures(device) and update == WARM_UP:
            replay = _captured(gradients, device)
        replay()
        optimiser.step()
        schedule.step()
        if at and update + 1 in at:
            objective.write_back()
            at[update + 1]()
    replay = gradients  # lets go of the graph and its memory
    objective.write_back()
    for member in members:
        member.requires_grad_(False).eval()


def captures(device: torch.device) -> bool:
    """Whether an update is captured as a CUDA graph there."""
    return device.type == "cuda"


def _captured(function: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """The kernels of `function` as a CUDA graph: fixed shapes, everything at a fixed place, no host in the loop.

    Where it cannot be captured, `function` itself, with a warning.  Raises torch.OutOfMemoryError.
    """
    gc.collect()  # the graph of an earlier population must be gone before one is captured on the same stream
    stream, graph = _stream(device), torch.cuda.CUDAGraph()
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        function()
    torch.cuda.current_stream(device).wait_stream(stream)
    before = torch.cuda.current_stream(device)
    try:
        with torch.cuda.graph(graph, stream=stream):
            function()
    except RuntimeError as error:
        torch.cuda.set_stream(before)
        full = isinstance(error.__context__, torch.OutOfMemoryError) or "out of memory" in str(error)
        if full or "ALLOC_FAILED" in str(error):
            raise torch.OutOfMemoryError(str(error)) from error
        warnings.warn(f"training without a CUDA graph, more slowly: {error}", stacklevel=2)
        return function
    return graph.replay


@lru_cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """The one stream on which this device's graphs are captured; every further one would keep workspaces of its own."""
    return torch.cuda.Stream(device)


class _InTurn:
    """Members one after the other within an update."""

    def __init__(self, members: Sequence[nn.Module], loss: Loss, parts: Iterable[str] = ("",)):
        self.members, self.loss = members, loss
        self.parameters = [p for member in members for p in member.parameters()]
        self.parts = {name: [list(m.get_submodule(name).parameters()) for m in members] for name in parts}

    def part(self, name: str) -> list[nn.Parameter]:
        return [p for own in self.parts[name] for p in own]

    def __call__(self, inputs: Sequence[Sequence[Tensor]]) -> Tensor:
        return sum(self.loss(member, *own) for member, *own in zip(self.members, *inputs, strict=True))

    def clip_(self, clip: float) -> None:
        for own in itertools.chain.from_iterable(self.parts.values()):
            nn.utils.clip_grad_norm_(own, clip)

    def write_back(self) -> None:
        pass


class _Stacked:
    """Members as one module whose parameters have a leading axis P."""

    def __init__(self, members: Sequence[nn.Module], loss: Loss, parts: Iterable[str] = ("",)):
        self.members = members
        modules = [_Objective(member, loss) for member in members]
        weights, self.buffers = stack_module_state(modules)
        self.weights = {name: weight.detach().requires_grad_() for name, weight in weights.items()}
        self.parameters, self.shape = list(self.weights.values()), modules[0]
        inside = {name: f"member.{name}.".replace("..", ".") for name in parts}
        self.parts = {k: [w for n, w in self.weights.items() if n.startswith(start)] for k, start in inside.items()}

    def part(self, name: str) -> list[Tensor]:
        return self.parts[name]

    def __call__(self, inputs: Sequence[Sequence[Tensor]]) -> Tensor:
        call = lambda weights, buffers, *own: functional_call(self.shape, (weights, buffers), own)  # noqa: E731
        return torch.vmap(call)(self.weights, self.buffers, *(_stack(tensors) for tensors in inputs)).sum()

    def clip_(self, clip: float) -> None:
        """As `nn.utils.clip_grad_norm_`, for every member of the leading axis and each of its parts."""
        for own in self.parts.values():
            gradients = [p.grad.flatten(1) for p in own]
            norm = torch.stack([torch.linalg.vector_norm(g, dim=1) for g in gradients]).norm(dim=0)
            scale = (clip / (norm + 1e-6)).clamp(max=1.0)
            for gradient in gradients:
                gradient.mul_(scale[:, None])

    @torch.no_grad()
    def write_back(self) -> None:
        for name, weight in self.weights.items():
            for member, own in zip(self.members, weight, strict=True):
                member.get_parameter(name.removeprefix("member.")).copy_(own)


class _Objective(nn.Module):
    """A member with its loss as `forward`, the form that `functional_call` wants."""

    def __init__(self, member: nn.Module, loss: Loss):
        super().__init__()
        self.member, self.loss = member, loss

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.loss(self.member, *inputs)


def _stack(tensors: Sequence[Tensor] | Tensor) -> Tensor:
    """[P, ...]; a batch that all members share is not copied."""
    if isinstance(tensors, Tensor):
        return tensors
    if all(t is tensors[0] for t in tensors):
        return tensors[0].expand(len(tensors), *tensors[0].shape)
    return torch.stack(list(tensors))
