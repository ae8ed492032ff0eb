from __future__ import annotations

from typing import Any

from django import forms
from django.contrib.auth.forms import AuthenticationForm, PasswordChangeForm, SetPasswordForm
from django.core.exceptions import ValidationError

from steering.accounts.models import User
from steering.accounts.throttle import is_locked


def password_input(autocomplete: str, **attrs: Any) -> forms.PasswordInput:
    return forms.PasswordInput(attrs={"class": "form-control", "autocomplete": autocomplete, **attrs})


class SignInForm(AuthenticationForm):
    username = forms.EmailField(
        label="E-mail",
        widget=forms.EmailInput(attrs={"class": "form-control", "autocomplete": "username", "autofocus": True}),
    )
    password = forms.CharField(label="Password", strip=False, widget=password_input("current-password"))
    error_messages = {
        "invalid_login": "No account has this e-mail and password. Check both, or ask for a sign-in link.",
        "inactive": "This account is switched off. Ask the person who runs this installation.",
        "locked": "There were too many wrong passwords for this e-mail. Wait 15 minutes, or use a sign-in link.",
    }

    def get_invalid_login_error(self) -> ValidationError:
        email = User.objects.normalize_email(self.cleaned_data.get("username"))
        if is_locked(email):
            return ValidationError(self.error_messages["locked"], code="locked")
        return super().get_invalid_login_error()


class FirstPasswordForm(SetPasswordForm):
    new_password1 = forms.CharField(label="New password", strip=False, widget=password_input("new-password"))
    new_password2 = forms.CharField(label="The same again", strip=False, widget=password_input("new-password"))


class NewPasswordForm(FirstPasswordForm, PasswordChangeForm):
    old_password = forms.CharField(label="Present password", strip=False, widget=password_input("current-password"))


class ProfileForm(forms.ModelForm):
    class Meta:
        model = User
        fields = ["name"]
        widgets = {"name": forms.TextInput(attrs={"class": "form-control", "autocomplete": "name"})}
