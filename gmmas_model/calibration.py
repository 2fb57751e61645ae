"""Temperatures on a prediction: every conditional logit is divided by the temperature of its head.

    p_WT = s(l0 / T_wt),  p_TC = p_WT s(l1 / T_tc),  a = s(l / T_idh),  b = s(l / T_codeletion)

Only conditional logits change, so regions stay nested, subtypes still sum to 1, and nothing can contradict itself.

Shape suffixes: B batch, R region (WT, TC, ET), XYZ voxels.
"""

from dataclasses import replace

from gmmas_model.prediction import Prediction
from gmmas_schema.calibration import Temperatures
from gmmas_schema.vocabulary import REGIONS, Task


def calibrate_prediction(prediction: Prediction, temperatures: Temperatures) -> Prediction:
    """Return the prediction with calibrated logits, in fp32; a head without a temperature keeps its own.

    Args:
        prediction: logits of any batch, window or mirror image. Calibrate before probabilities are averaged.
        temperatures: of heads (regions and molecular tasks), all > 0.
    """
    region_BRXYZ = prediction.region_logits_BRXYZ.float()
    scale_R111 = region_BRXYZ.new_tensor([temperatures.get(region, 1.0) for region in REGIONS])[:, None, None, None]
    return replace(
        prediction,
        region_logits_BRXYZ=region_BRXYZ / scale_R111,
        idh_logit_B=prediction.idh_logit_B.float() / temperatures.get(Task.IDH, 1.0),
        codeletion_logit_B=prediction.codeletion_logit_B.float() / temperatures.get(Task.CODELETION, 1.0),
    )
