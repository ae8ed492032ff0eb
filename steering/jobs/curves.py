"""What the loss curve of an optimisation is called, on every page that draws one."""

_NAMES = {"bipo": "Preference loss, nats", "melbo": "Loss: minus the change"}


def loss_name(method: str) -> str:
    return _NAMES.get(method, "Loss, nats")
