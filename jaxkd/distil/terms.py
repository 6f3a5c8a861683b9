"""What an objective can be made of: this is the contents."""

from jaxkd.distil.ctc_terms import CtcHypotheses as CtcHypotheses
from jaxkd.distil.ctc_terms import CtcLabels as CtcLabels
from jaxkd.distil.ctc_terms import FrameTargets as FrameTargets
from jaxkd.distil.exit_terms import AtExits as AtExits
from jaxkd.distil.layer_terms import AttentionMaps as AttentionMaps
from jaxkd.distil.layer_terms import CosineHidden as CosineHidden
from jaxkd.distil.layer_terms import HiddenStates as HiddenStates
from jaxkd.distil.layer_terms import Relations as Relations
from jaxkd.distil.layer_terms import Similarity as Similarity
from jaxkd.distil.regression_terms import SquaredError as SquaredError
from jaxkd.distil.schedule import Ramp as Ramp
from jaxkd.distil.vocabulary_terms import Divergence as Divergence
from jaxkd.distil.vocabulary_terms import HardLabels as HardLabels
from jaxkd.distil.vocabulary_terms import SoftTargets as SoftTargets
