"""Learn to schedule a power plant: a model forecasts demand, a quadratic program plans, the cost is the loss.

    python examples/decision_focused.py            # trains once, and shows how good the last gradient was
    python examples/decision_focused.py --spread   # several splits and seeds, beside models that know no cost

The second one takes two minutes. Both need ``pip install 'cvxfold[examples]'``.
"""

import argparse
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from cvxfold.studies.demo.data import WEEK, Days, load, split, split_at
from cvxfold.studies.demo.decision_focused import decision_loss
from cvxfold.studies.demo.model import Predictor, cost, scheduling
from cvxfold.studies.demo.settings import Settings
from cvxfold.studies.demo.training import Trainer
from cvxfold.studies.demo.two_stage import mean_cost, two_stage

# from cvxpylayers.torch import CvxpyLayer
from cvxfold.torch import CvxpyLayer  # the one line that changes

MONTHS = (200, 230, 268, 290)  # days of training; the test begins on the day after


def train_once() -> None:
    """Train for a few epochs and look at how good the last gradient was."""
    torch.manual_seed(0)
    train, test = split(load())
    layer = CvxpyLayer(*scheduling())
    model = Predictor(train)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    for epoch in range(1, 11):
        for batch in torch.randperm(len(train)).split(32):
            (plan,) = layer(model(train.features[batch]))
            loss = cost(plan, train.demand[batch]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            (plan,) = layer(model(test.features))
        print(f"epoch {epoch:>2}  an unseen day costs {cost(plan, test.demand).mean():.2f}")

    print("\nThe last batch, forward and backward:")
    layer(model(train.features[:32]))[0].sum().backward()
    print(layer.report)


def splits(days: Days) -> Iterator[tuple[str, Days, Days]]:
    """The days after some day as the test, for several such days; then whole weeks, drawn at random."""
    for cut in MONTHS:
        yield (f"from {days.dates[cut]}", *split_at(days, cut))
    for draw in range(4):
        weeks = torch.randperm(len(days) // WEEK, generator=torch.Generator().manual_seed(draw))
        unseen = torch.isin(torch.arange(len(days)) // WEEK, weeks[: len(weeks) // 4])
        order = torch.cat([torch.nonzero(~unseen).flatten(), torch.nonzero(unseen).flatten()])
        yield (f"weeks, draw {draw}", *split_at(_reordered(days, order), int((~unseen).sum())))


def _reordered(days: Days, order: Tensor) -> Days:
    dates = tuple(days.dates[number] for number in order.tolist())
    return Days(dates, days.features[order], days.last_week[order], days.demand[order])


def spread(seeds: int = 3) -> None:
    """Print what an unseen day costs after each way to train."""
    layer = CvxpyLayer(*scheduling())

    def plan(forecast: Tensor) -> Tensor:
        return layer(forecast)[0]

    def unplanned(forecast: Tensor) -> Tensor:
        return forecast

    print(
        f"{'test days':<17} {'last week':>9} {'two-stage':>9} {'margin':>7} {'quantile':>8} {'decision':>8}"
    )
    for name, train, test in splits(load()):
        for seed in range(seeds):
            settings = Settings(seed=seed)
            base = two_stage(plan, train, test, settings, lambda _: None)
            costs = [base.last_week_cost, base.test_cost[-1], base.margin_cost]
            for through in (unplanned, plan):
                trained = _trained(through, train, settings)
                costs.append(mean_cost(plan, trained.forecast(test), test))
            print(
                f"{name:<17} " + " ".join(f"{c:{w}.2f}" for c, w in zip(costs, (9, 9, 7, 8, 8), strict=True))
            )


def _trained(plan: Callable[[Tensor], Tensor], train: Days, settings: Settings) -> Trainer:
    trainer = Trainer("", decision_loss(plan), train, settings)
    for _ in range(settings.epochs):
        trainer.epoch()
    return trainer


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Learn to schedule a power plant.")
    parser.add_argument("--spread", action="store_true", help="several splits and seeds, beside other models")
    spread() if parser.parse_args().spread else train_once()
