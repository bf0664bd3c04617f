"""Records in MLflow: operations go to an outbox first, and from there to MLflow in a thread of the driver.

MLflow takes seconds to import, so that only `writer` and `models` import it at the top, and others nowhere but in a
function that needs it.
"""

import os

# MLflow reads the first one when it is imported. A request is sent once: the `Sender` retries by itself, and looks
# first whether a run was created before the answer was lost; MLflow's own retries would create it twice.
for _name, _value in {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}.items():
    os.environ.setdefault(_name, _value)
