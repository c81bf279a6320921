"""Watches the model of one worker: which request each row of a pass belongs to, its norms, and what is done to it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import partial, wraps
from typing import TYPE_CHECKING, Any

from langnorm.engines.vllm.order import Order, Taken
from langnorm.engines.vllm.starting import CONFIG_NAME
from langnorm_vllm.batch_view import BatchView, read_v1, read_v2
from langnorm_vllm.boundaries import find_other_arguments, visit, watch_boundaries
from langnorm_vllm.intervener import Intervener
from langnorm_vllm.layer_hooks import LayerHooks
from langnorm_vllm.layers import ResidualStream, find_decoder_layers, find_residual_rule, signature_of
from langnorm_vllm.norm_store import Kept, NormStore
from langnorm_vllm.pass_norms import PassNorms
from langnorm_vllm.roster import ObservedSequence, Roster
from langnorm_vllm.token_choice import CHOOSERS

if TYPE_CHECKING:
    from torch import Tensor, nn
    from vllm.v1.worker.gpu_worker import Worker

_MOST_ENDED = 4096
"""Sequences that have ended and that nobody has taken: more are forgotten, the oldest first."""


class WorkerSide:
    """What langnorm does in one worker.

    Args:
        worker: The worker, whose model has just been loaded.

    Raises:
        UnknownModelError: The layers of the model are not understood.
    """

    def __init__(self, worker: Worker) -> None:
        config, runner = worker.vllm_config, worker.model_runner
        model = runner.get_model()
        num_layers = config.model_config.hf_text_config.num_hidden_layers
        layers, parent = find_decoder_layers(model, num_layers)
        self._parameters = [frozenset(signature_of(layer).parameters) for layer in layers]  # of the layers
        self._stream = ResidualStream(find_residual_rule(model, layers, parent, config))
        num_rows = config.scheduler_config.max_num_batched_tokens
        self._norms = PassNorms(self._stream, num_layers, num_rows, worker.device)
        self._store = NormStore()
        self._sequences: OrderedDict[str, ObservedSequence] = OrderedDict()  # by key, those that came first in front
        self._by_request: dict[str, ObservedSequence] = {}  # running ones, by vLLM's own id
        self._intervener = Intervener(layers, self._stream)
        self._roster: Roster | None = None  # of the last pass; None where a sequence has come or gone since
        self._kept: Kept | None = None  # the rows of the pass under way whose norms are kept
        self._wanted: frozenset[int] = frozenset()  # the layers in which they are
        self._description: dict[str, Any] = {"rule": self._stream.rule, "num_layers": num_layers}
        is_eager = bool(config.model_config.enforce_eager)
        is_cut = not is_eager and config.additional_config[CONFIG_NAME]["interventions"]
        self._are_layers_apart = is_eager or is_cut
        self._hooks: LayerHooks | None = None
        self._layer_arguments: list[Mapping[str, Any]] | None = None  # of a model whose graphs end at each layer
        if is_eager:
            self._hooks = LayerHooks(layers, self._note, self._intervener.enter_layer, self._act)
        elif is_cut:
            self._layer_arguments = find_other_arguments(model, layers, config)
            watch_boundaries(layers, self._stream)
        else:  # a graph has no branches: it notes the norms of all layers
            for index, layer in enumerate(layers):
                layer.register_forward_hook(partial(self._note_in_graph, index))
        self._layers = layers
        self._description["knows_arguments"] = not is_cut or self._layer_arguments is not None
        self._watch(runner, is_v2=bool(getattr(worker, "use_v2_model_runner", False)))

    def describe(self) -> dict[str, Any]:
        """Return what is known of the model, and what has come of a trial if there was one."""
        return self._description | {"rerun": self._intervener.trial.describe()}

    # What is asked of it over RPC.

    def take(self, keys: Sequence[str], num_rows: Sequence[int]) -> list[dict[str, Any] | None]:
        """Return what was recorded of sequences that have ended, and forget them.

        Args:
            keys: Of the sequences.
            num_rows: How many of the generated tokens of each were run: rows of later ones are left out.

        Returns:
            Fields of `Taken`, or None where a key is unknown.
        """
        taken = self.peek(keys, num_rows)
        for key, length, fields in zip(keys, num_rows, taken, strict=True):
            if fields is not None:
                fields["interventions"] = self._intervener.report(self._sequences[key].order, length)
        self.forget(keys)
        return taken

    def peek(self, keys: Sequence[str], num_rows: Sequence[int]) -> list[dict[str, Any] | None]:
        """Return what `take` returns of sequences that go on, but not what was done to their states."""
        self._store.flush()
        return [self._read(key, length) for key, length in zip(keys, num_rows, strict=True)]

    def norms(self, keys: Sequence[str], starts: Sequence[int], ends: Sequence[int]) -> list[bytes]:
        """Return the norms of some generated tokens of sequences that go on.

        Args:
            keys: Of the sequences.
            starts: Number of the first token of each.
            ends: Number of the token after the last one.

        Returns:
            As `Taken.norms`, without the prompt; nothing where a key is unknown.
        """
        self._store.flush()
        found = []
        for key, start, end in zip(keys, starts, ends, strict=True):
            sequence, rows = self._sequences.get(key), b""
            if sequence and sequence.norms:
                first = sequence.order.num_prompt_tokens - sequence.norms.first_position
                rows = sequence.norms.rows()[first + start : first + end].tobytes()
            found.append(rows)
        return found

    def forget(self, keys: Sequence[str]) -> None:
        """Forget sequences, whether they have ended or not."""
        for key in keys:
            if sequence := self._sequences.pop(key, None):
                self._roster = None
                self._intervener.leave(sequence.order)
                CHOOSERS.pop(key, None)
                for request_id in [i for i, other in self._by_request.items() if other is sequence]:
                    del self._by_request[request_id]

    def _read(self, key: str, num_rows: int) -> dict[str, Any] | None:
        sequence = self._sequences.get(key)
        if sequence is None:
            return None
        norms, chooser = b"", CHOOSERS.get(key)
        if sequence.norms:
            end = sequence.order.num_prompt_tokens + num_rows - sequence.norms.first_position
            norms = sequence.norms.rows()[:end].tobytes()
        distribution = chooser.distribution(num_rows + 1) if chooser and sequence.order.records_distribution else b""
        return Taken(norms=norms, distribution=distribution).to_dict()

    # What happens in a pass.

    def _watch(self, runner: Any, *, is_v2: bool) -> None:
        """Follow the passes of a runner: `execute_model` makes one, and in it the inputs are prepared."""
        execute = runner.execute_model

        @wraps(execute)
        def execute_watched(scheduled: Any, *args: Any, **kwargs: Any) -> Any:
            self._enter(scheduled)
            try:
                return execute(scheduled, *args, **kwargs)
            finally:
                self._end_pass()

        runner.execute_model = execute_watched
        if is_v2:
            prepare = runner.prepare_inputs

            @wraps(prepare)
            def prepare_watched(*args: Any, **kwargs: Any) -> Any:
                batch = prepare(*args, **kwargs)
                self._begin_pass(read_v2(batch))
                return batch

            runner.prepare_inputs = prepare_watched
            return
        forward = runner._model_forward

        @wraps(forward)
        def forward_watched(*args: Any, **kwargs: Any) -> Any:
            self._begin_pass(read_v1(runner))
            return forward(*args, **kwargs)

        runner._model_forward = forward_watched

    def _enter(self, scheduled: Any) -> None:
        """Note which requests are new, and which have ended. One that was preempted may come as new again."""
        if scheduled.finished_req_ids or scheduled.scheduled_new_reqs:
            self._roster = None
        for request_id in scheduled.finished_req_ids:
            self._by_request.pop(request_id, None)
        for request in scheduled.scheduled_new_reqs:
            params = request.sampling_params
            fields = (params.extra_args or {}).get(CONFIG_NAME) if params else None
            if fields is None:
                continue
            sequence = self._sequences.get(fields["key"])
            if sequence is None:
                sequence = self._sequences[fields["key"]] = ObservedSequence(Order.from_dict(fields))
                self._intervener.enter(sequence.order)
            self._by_request[request.req_id] = sequence
        if len(self._sequences) - len(self._by_request) > _MOST_ENDED:
            running = {sequence.order.key for sequence in self._by_request.values()}
            self.forget([next(key for key in self._sequences if key not in running)])

    def _begin_pass(self, batch: BatchView) -> None:
        roster = self._roster
        if roster is None or roster.request_ids != batch.request_ids:
            roster = self._roster = Roster(batch.request_ids, self._by_request)
            if self._are_layers_apart:
                self._norms.set_layers(sorted(roster.layers))
            if self._hooks:
                self._hooks.set(roster.layers, is_acting=roster.is_acted_on)
        self._kept = roster.kept(batch)
        self._wanted = roster.layers if self._kept is not None else frozenset()
        if roster.is_acted_on:
            self._intervener.begin_pass(roster.orders, batch)
        if self._hooks is None and (self._wanted or roster.is_acted_on):
            visit.set(self._visit)

    def _end_pass(self) -> None:
        """Keep the norms of a pass, also of one that has failed: its tokens are computed again, and so are these."""
        if self._kept is not None and self._roster:
            norms = self._norms.take(self._kept.rows)
            self._store.keep(norms, self._norms.layers, self._kept, self._roster.owners)
        self._kept, self._wanted = None, frozenset()
        visit.set(None)
        if self._roster and self._roster.is_acted_on:
            self._intervener.end_pass()

    def _note(self, index: int, _layer: nn.Module, _args: Any, output: Any) -> None:
        """Note the norms after a layer that is only looked at."""
        if index in self._wanted:
            self._norms.note(index, output)

    def _note_in_graph(self, index: int, _layer: nn.Module, _args: Any, output: Any) -> None:
        self._norms.note_now(index, self._stream.get(output))

    def _visit(self, index: int, hidden: Tensor, residual: Tensor | None, positions: Tensor | None) -> None:
        """Do in between two layers of a compiled model what hooks do with one that is called layer by layer."""
        if not (self._roster and self._roster.is_acted_on):
            if index:
                self._note(index - 1, self._layers[index - 1], (), self._stream.output(hidden, residual))
            return
        states = {"hidden_states": hidden, "residual": residual, "positions": positions}
        if index:
            output = self._stream.output(hidden, residual)
            changed = self._act(index - 1, self._layers[index - 1], (), self._arguments(index - 1, states), output)
            if changed is not None:
                self._stream.hidden(output).copy_(self._stream.hidden(changed))
                if residual is not None:
                    residual.copy_(changed[1])
        if index < len(self._layers):
            self._intervener.enter_layer(index, self._layers[index], (), self._arguments(index, states))

    def _arguments(self, index: int, states: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of a layer by name, as far as they are known."""
        others = self._layer_arguments[index] if self._layer_arguments else {}
        taken = self._parameters[index]
        return {**{name: value for name, value in states.items() if name in taken}, **others}

    def _act(self, index: int, _layer: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        """Act on the states after a layer, and note their norms."""
        changed, norms = self._intervener.act(index, args, kwargs, output)
        if index in self._wanted:
            if norms is not None:
                self._norms.put(index, norms)
            else:
                self._norms.note_now(index, self._stream.get(output if changed is None else changed))
        return changed
