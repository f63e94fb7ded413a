"""Random forest on filter features: what ilastik and Labkit do, with scikit-image and scikit-learn."""

from __future__ import annotations

import sys

from task import Task, limit_threads

limit_threads(int(sys.argv[3]))

from features import filter_features, predicted  # noqa: E402
from sklearn.ensemble import RandomForestClassifier  # noqa: E402

_TREES = 100
_TREE_VOXELS = 50_000
"""Voxels that each tree sees."""

if __name__ == "__main__":
    task = Task()
    features = filter_features(task.image)
    known, ids = features[task.sparse > 0], task.sparse[task.sparse > 0]
    forest = RandomForestClassifier(
        _TREES,
        min_samples_leaf=4,
        max_samples=min(_TREE_VOXELS, len(ids)),
        n_jobs=task.threads,
        random_state=task.state,
    ).fit(known, ids)
    task.trained()
    task.finish(predicted(forest, features))
