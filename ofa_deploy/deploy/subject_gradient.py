"""What the strategy ``differentiable`` learns from: a subject's supernet and its images."""

from __future__ import annotations

from ofa_deploy.deploy.subject import Subject
from ofa_deploy.differentiable.on_images import gradient_on_images
from ofa_deploy.errors import UsageError
from ofa_deploy.search import Gradient, Plan


def gradient_of(subject: Subject, plan: Plan) -> Gradient:
    """Learning on the subject's images.

    Raises:
        UsageError: there is no trained supernet, or its images are not at hand: an accuracy predictor alone has no
            gradient by which weights on images could be judged.
    """
    needs = "strategy differentiable learns on a supernet's images"
    if subject.supernet is None:
        raise UsageError(f"{needs}, and {subject.name} has none: give --supernet, or another --strategy")
    if subject.data is None or subject.recipe is None:
        raise UsageError(f"{needs}: {subject.name}: {subject.data_error}; choose another --strategy")
    return gradient_on_images(subject.supernet, subject.data, subject.recipe, plan)
