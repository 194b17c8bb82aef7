"""Learn to invest: a network predicts returns, Markowitz's problem invests, the regret is the loss.

Run with ``python examples/portfolio_training.py`` (needs ``pip install 'cvxfold[examples]'``).
"""

import torch

from cvxfold.studies.demo.data import load, split
from cvxfold.studies.demo.model import Predictor, markowitz, regret, utility

# from cvxpylayers.torch import CvxpyLayer
from cvxfold.torch import CvxpyLayer  # the one line that changes


def main() -> None:
    """Train for a few epochs and look at how good the last gradient was."""
    torch.manual_seed(0)
    train, test = split(load())
    stocks, features = train.features.shape[1:]
    layer = CvxpyLayer(*markowitz(stocks))
    model = Predictor(stocks, features)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

    (perfect,) = layer(train.returns, train.root)  # portfolios that know the returns
    best = utility(perfect, train.returns, train.root)

    for epoch in range(1, 11):
        mean = 0.0
        for batch in torch.randperm(len(train)).split(64):
            root, returns = train.root[batch], train.returns[batch]
            (weights,) = layer(model(train.features[batch]), root)
            loss = regret(weights, returns, root, best[batch]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            mean += loss.item() * len(batch) / len(train)
        print(f"epoch {epoch:>2}  regret {mean:.3f} percent a week")

    print("\nThe last batch, forward and backward:")
    print(layer.report)

    with torch.no_grad():
        (weights,) = layer(model(test.features[-1]), test.root[-1])  # one week, unbatched
    chosen = sorted(zip(weights.tolist(), test.tickers, strict=True), reverse=True)[:5]
    print(f"\nFor the week to {test.dates[-1]}:", ", ".join(f"{w:.0%} {name}" for w, name in chosen))


if __name__ == "__main__":
    main()
