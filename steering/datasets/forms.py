"""Name and description, and the two ways in which a text arrives."""

from __future__ import annotations

from typing import Any

from django import forms
from django.core.files.uploadedfile import UploadedFile

from steering.datasets.importing import decode, tidy
from steering.datasets.limits import MAX_BYTES, BadText
from steering.datasets.models import Dataset


class AboutForm(forms.ModelForm):
    use_required_attribute = False  # the browser's bubble would stop buttons that need no name

    class Meta:
        model = Dataset
        fields = ("name", "description")
        labels = {"description": "What should it change?"}
        widgets = {
            "name": forms.TextInput(attrs={"class": "form-control", "placeholder": "Calm instead of anger"}),
            "description": forms.Textarea(
                attrs={
                    "class": "form-control",
                    "rows": 2,
                    "placeholder": "The positive side stays patient; the negative side shouts.",
                }
            ),
        }
        error_messages = {"name": {"required": "Give the dataset a name."}}


class UnnamedForm(AboutForm):
    """An import may still be without a name: the file's name is offered on the next page."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.fields["name"].required = False


class SourceForm(forms.Form):
    """Gives `text` and `source` once it is valid."""

    file = forms.FileField(required=False, allow_empty_file=True)
    pasted = forms.CharField(required=False, strip=False)

    def __init__(self, *args: Any, how: str, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.how = how

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        try:
            data["source"], data["text"] = self._from_file(data) if self.how == "upload" else self._from_paste(data)
        except BadText as error:
            raise forms.ValidationError(str(error)) from None
        return data

    def _from_file(self, data: dict[str, Any]) -> tuple[str, str]:
        file: UploadedFile | None = data.get("file")
        if file is None:
            raise BadText("No file was chosen. Choose a JSONL or CSV file.")
        if (file.size or 0) > MAX_BYTES:
            size = (file.size or 0) / 2**20
            raise BadText(f"“{file.name}” has {size:.0f} MB; the most is {MAX_BYTES // 2**20} MB. Split it.")
        return (file.name or "file")[-200:], decode(file.read())

    def _from_paste(self, data: dict[str, Any]) -> tuple[str, str]:
        text = data.get("pasted", "").replace("\r\n", "\n")
        if not text.strip():
            raise BadText("Nothing was pasted yet. Paste lines of JSONL, or rows of CSV.")
        return "pasted text", tidy(text)
