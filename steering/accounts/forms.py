from __future__ import annotations

from typing import Any

from django import forms
from django.contrib.auth.forms import AuthenticationForm

from steering.accounts.models import User


class SignInForm(AuthenticationForm):
    username = forms.EmailField(
        label="E-mail",
        widget=forms.EmailInput(attrs={"class": "form-control", "autocomplete": "username", "autofocus": True}),
    )
    password = forms.CharField(
        label="Password",
        strip=False,
        widget=forms.PasswordInput(attrs={"class": "form-control", "autocomplete": "current-password"}),
    )
    error_messages = {
        "invalid_login": "No account has this e-mail and password. Check both, or ask for a sign-in link.",
        "inactive": "This account is switched off. Ask the person who runs this installation.",
    }


class ProfileForm(forms.ModelForm):
    class Meta:
        model = User
        fields = ["name"]
        widgets: dict[str, Any] = {"name": forms.TextInput(attrs={"class": "form-control", "autocomplete": "name"})}
