"""The memory plan counts what SOAP keeps and what its step takes."""

from helm_scale import config
from helm_scale.config import ModelConfig, PretrainConfig
from helm_scale.optim import soap
from helm_scale.parallel import flat_shards
from helm_scale.parallel.sharded_matrices import owned_matrices
from helm_scale.pretraining.memory.footprint import StepEstimator
from helm_scale.pretraining.memory.states import state_bytes


def test_states_of_soap_are_counted_as_it_makes_them_and_whole_on_one_rank() -> None:
    sizes = {"channels": 8, "hidden_channels": 8, "edge_channels": 8, "num_layers": 1}
    small = ModelConfig(basis="def2-svp", lmax=4, mmax=4, **sizes)
    estimator = StepEstimator(small, {"H": 5, "C": 4})
    training = config.TrainingConfig(optimizer="soap", soap_max_side=12)

    def of(engine: str, ranks: int) -> int:
        execution = config.ExecutionConfig(engine=engine)
        settings = PretrainConfig(execution=execution, training=training)
        return state_bytes(estimator.model, settings, ranks).device["optimiser"]

    every = {p: flat_shards.from_replicated(p) for p in estimator.model.parameters()}
    hidden = [every[matrix] for matrix in estimator.model.hidden_matrices()]
    optimizer = soap.make(hidden, training)
    made = {
        shard: sum(4 * x.numel() for x in optimizer.state[shard.local].values() if x.ndim)
        for shard in hidden
    }
    adamw = 8 * sum(shard.local.numel() for shard in every.values() if shard not in made)
    assert of("single", 1) == of("ddp", 2) == adamw + sum(made.values())
    owned = owned_matrices([(s.shape[0], s.shape[1]) for s in hidden], 2)
    parts = [sum(made[hidden[i]] for i in indices) for indices in owned]
    assert of("fsdp2", 2) == of("zero1", 2) == -(-adamw // 2) + max(parts)
    assert sum(parts) == sum(made.values()) and min(parts) > 0
    updates = sum(4 * shard.local.numel() for shard in hidden)
    step = estimator.optimizer_step_bytes(training)
    assert step > updates
    # The renewal of the bases, which takes most, is among the steps that are looked at.
    always = training.model_copy(update={"soap_renew_every": 1})
    assert step >= estimator.optimizer_step_bytes(always)
