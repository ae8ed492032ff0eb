"""The forms of accounts: allauth's, with our words and our controls."""

from __future__ import annotations

from typing import Any, ClassVar

from allauth.account import forms as account
from allauth.mfa.base import forms as mfa
from allauth.mfa.totp import forms as totp
from django import forms
from django.db import IntegrityError, transaction
from django.http import HttpRequest, HttpResponse

from steering.accounts import signup
from steering.accounts.models import Invitation, User

PASSWORD_HINT = "At least 12 characters. A few unrelated words are easy to remember and hard to guess."  # noqa: S105
NEW = {"password1": "New password", "password2": "The same again"}


class Styled:
    """Gives every field our class, and the labels and hints named here in place of the form's own."""

    labels: ClassVar[dict[str, str]] = {}
    hints: ClassVar[dict[str, str]] = {}
    autofocus = ""
    fields: dict[str, forms.Field]

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        for name, field in self.fields.items():
            field.widget.attrs.pop("placeholder", None)
            field.widget.attrs["class"] = "form-control"
            field.label = self.labels.get(name, field.label)
            field.help_text = self.hints.get(name, "")
            if name == self.autofocus:
                field.widget.attrs["autofocus"] = True


class SignInForm(Styled, account.LoginForm):
    labels = {"login": "E-mail", "password": "Password"}
    autofocus = "login"

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.fields["login"].widget.attrs["autocomplete"] = "username"


class SignUpForm(Styled, account.SignupForm):
    """An invitation is for one address, which then needs no proof; otherwise a link goes to the address."""

    labels = {"email": "E-mail", "password1": "Password", "password2": "The same again"}
    hints = {"password1": PASSWORD_HINT}
    invitation: Invitation | None = None
    account_already_exists: bool

    def __init__(self, *args: Any, invitation: Invitation | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.invitation = invitation
        if invitation:
            self.fields["email"].initial = invitation.email
            self.fields["email"].disabled = True

    def clean_email(self) -> str:
        email: str = super().clean_email()
        if self.invitation and self.account_already_exists:  # whoever holds the invitation may know
            raise forms.ValidationError("There is an account with this e-mail already. Sign in, or reset its password.")
        return email

    def try_save(self, request: HttpRequest) -> tuple[User | None, HttpResponse | None]:
        """The account and its address, and the invitation used up, or none of it. Raises InvitationSpent."""
        if not self.account_already_exists:
            try:
                with transaction.atomic():
                    self._use_invitation(request)
                    return super().try_save(request)
            except IntegrityError:  # the same address signed up at the same moment
                self.account_already_exists = True
        User().set_password(self.cleaned_data["password1"])  # takes as long as it does for a new address
        return super().try_save(request)

    def _use_invitation(self, request: HttpRequest) -> None:
        if self.invitation:
            if not Invitation.objects.redeem(self.invitation):
                raise signup.InvitationSpent
            signup.use(request, self.invitation)


class EmailForm(Styled, account.AddEmailForm):
    labels = {"email": "New e-mail"}


class FirstPasswordForm(Styled, account.SetPasswordForm):
    labels = NEW
    hints = {"password1": PASSWORD_HINT}


class NewPasswordForm(Styled, account.ChangePasswordForm):
    labels = {"oldpassword": "Present password", **NEW}
    hints = {"password1": PASSWORD_HINT}


class ResetForm(Styled, account.ResetPasswordForm):
    labels = {"email": "E-mail"}
    autofocus = "email"


class ResetKeyForm(Styled, account.ResetPasswordKeyForm):
    labels = NEW
    hints = {"password1": PASSWORD_HINT}


class ReauthenticateForm(Styled, account.ReauthenticateForm):
    labels = {"password": "Password"}
    autofocus = "password"


class Digits(Styled):
    """A code is typed on a phone as often as not."""

    labels = {"code": "Code"}
    autofocus = "code"

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.fields["code"].widget.attrs |= {"inputmode": "numeric", "autocomplete": "one-time-code", "maxlength": "16"}


class ActivateTotpForm(Digits, totp.ActivateTOTPForm):
    pass


class CodeForm(Digits, mfa.AuthenticateForm):
    pass


class ReauthenticateCodeForm(Digits, mfa.ReauthenticateForm):
    pass


class ProfileForm(forms.ModelForm):
    class Meta:
        model = User
        fields = ["name"]
        widgets = {"name": forms.TextInput(attrs={"class": "form-control", "autocomplete": "name"})}


class InviteForm(Styled, forms.Form):
    email = forms.EmailField(label="E-mail", max_length=254)

    def clean_email(self) -> str:
        email = User.objects.normalize_email(self.cleaned_data["email"])
        if User.objects.filter(email=email).exists():
            raise forms.ValidationError("There is an account with this e-mail already. It needs no invitation.")
        return email


class DeleteForm(Styled, forms.Form):
    typed = forms.CharField(label="Your e-mail, to be sure", max_length=254)

    def __init__(self, user: User, *args: Any, **kwargs: Any):
        self.user = user
        super().__init__(*args, **kwargs)
        self.fields["typed"].widget.attrs |= {"autocomplete": "off", "autocapitalize": "none", "spellcheck": "false"}

    def clean_typed(self) -> str:
        if User.objects.normalize_email(self.cleaned_data["typed"]) != self.user.email:
            raise forms.ValidationError(f"This is not {self.user.email}. Type that to delete the account.")
        return self.user.email
