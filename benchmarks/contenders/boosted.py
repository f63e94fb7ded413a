"""Boosted trees on the features of the forest: scikit-learn's histogram-based gradient boosting."""

from __future__ import annotations

import sys

from task import Task, limit_threads

limit_threads(int(sys.argv[3]))

from features import filter_features, predicted  # noqa: E402
from sklearn.ensemble import HistGradientBoostingClassifier  # noqa: E402

if __name__ == "__main__":
    task = Task()
    features = filter_features(task.image)
    known, ids = features[task.sparse > 0], task.sparse[task.sparse > 0]
    trees = HistGradientBoostingClassifier(max_iter=100, early_stopping=False, random_state=task.state).fit(known, ids)
    task.trained()
    task.finish(predicted(trees, features))
