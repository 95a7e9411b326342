"""Opens a model as the platform's classifier does, in whatever Keras this environment has, and goes on training it.

`python opens.py MODEL PATCHES.npz` prints JSON: the version, how far its predictions are from those that came along, whether
it is compiled, and how much one step of training changed its weights. Knows nothing of the trainer.
"""

import json
import sys

import numpy as np
import tensorflow
from tensorflow import keras

model = keras.models.load_model(sys.argv[1])
given = np.load(sys.argv[2])
patches, expected = given["patches"], given["probabilities"]
apart = float(np.abs(model.predict(patches, verbose=0) - expected).max())
before = [weight.copy() for weight in model.get_weights()]
layer = (expected > 0.5).astype(np.float32)
model.fit(patches, layer, sample_weight=np.ones(patches.shape[:3], np.float32), batch_size=len(patches), verbose=0)
changed = max(float(np.abs(old - new).max()) for old, new in zip(before, model.get_weights()))
rate = float(np.asarray(model.optimizer.learning_rate))
print(json.dumps({
    "tensorflow": tensorflow.__version__, "apart": apart, "input": model.input_shape, "output": model.output_shape,
    "loss": model.loss if isinstance(model.loss, str) else model.loss.__name__, "rate": rate, "changed": changed,
}))  # fmt: skip
