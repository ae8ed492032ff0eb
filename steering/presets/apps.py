from django.apps import AppConfig


class PresetsConfig(AppConfig):
    name = "steering.presets"
    label = "presets"

    def load_starters(self) -> str:
        from steering.presets.starters import load_starter_presets

        return f"{len(load_starter_presets())} presets"
