"""Numbers that every implementation and its reference read from one place: copied here by hand."""

import numpy as np

from fastres import views
from fastres.views import colour
from fastres.views.geometry import Geometry


def test_imagenets_colours_are_fb_resnet_torchs():
    """Mean and deviation of RGB in 0..1, eigenvalues and eigenvectors of its covariance (datasets/imagenet.lua)."""
    np.testing.assert_array_equal(colour.MEAN, [0.485, 0.456, 0.406])
    np.testing.assert_array_equal(colour.STD, [0.229, 0.224, 0.225])
    np.testing.assert_array_equal(colour.EIGENVALUES, [0.2175, 0.0188, 0.0045])
    rows = [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]
    np.testing.assert_array_equal(colour.EIGENVECTORS, rows)


def test_an_odd_room_leaves_the_centre_below_and_to_the_right():
    """24 pixels leave 3 around a crop of 21; fb.resnet.torch rounds half of that up."""
    assert views.TWELVE_VIEWS[0].offset(Geometry(24, 1)) == (2, 2)
    assert views.TWELVE_VIEWS[0].offset(Geometry(16, 1)) == (1, 1)
