"""Multi-scale filter features of scikit-image, as pixel classifiers use them."""

from __future__ import annotations

from typing import Any

import numpy as np
from skimage.feature import multiscale_basic_features


def filter_features(image: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Z Y X F: smoothed grey values, edges and texture at standard deviations of 1 to 8 voxels."""
    features: np.ndarray[Any, np.dtype[np.float32]] = multiscale_basic_features(image, sigma_min=1, sigma_max=8)
    return features


def predicted(classifier: Any, features: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Class ids, plane by plane to bound the memory."""
    planes = [classifier.predict(plane.reshape(-1, plane.shape[-1])).reshape(plane.shape[:2]) for plane in features]
    return np.stack(planes)
