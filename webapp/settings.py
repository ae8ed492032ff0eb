"""Settings. The environment variables read here are the only ones there are; README lists them."""

from __future__ import annotations

import logging
from datetime import timedelta
from pathlib import Path
from typing import Any

import environ

from webapp.databases import database
from webapp.datadir import open_data_dir, secret_key
from webapp.logs import logging_settings
from webapp.public import host_of, mail, origin
from webapp.quotas import optional_count

env = environ.Env()

BASE_DIR = Path(__file__).resolve().parent.parent
DATA_DIR = open_data_dir(Path(env.str("STEERBOARD_DATA", default=str(BASE_DIR / "data"))).absolute())

# Where the model is
INFERENCE_URL = env.str("INFERENCE_URL", default="inprocess://default")
STEERBOARD_DTYPE = env.str("STEERBOARD_DTYPE", default="auto")
# What an administrator may load into a worker: the default model, hub ids and folders
STEERBOARD_MODELS = env.list("STEERBOARD_MODELS", default=["default"])
# Whose limits guests of the workshop's page use (an e-mail address), and the strength it begins with, in doses
WORKSHOP_HOST = env.str("WORKSHOP_HOST", default="")
WORKSHOP_STRENGTH = env.float("WORKSHOP_STRENGTH", default=1.0)
# Whether a policy may run what the model wrote as a program, against unit tests, in a sandbox
STEERBOARD_UNIT_TESTS = env.bool("STEERBOARD_UNIT_TESTS", default=False)
# For Neuronpedia's client: a further name of the default model, and how many tokens one prompt may have
STEERBOARD_NEURONPEDIA_MODEL = env.str("STEERBOARD_NEURONPEDIA_MODEL", default="")
STEERBOARD_NEURONPEDIA_TOKEN_LIMIT = env.int("STEERBOARD_NEURONPEDIA_TOKEN_LIMIT", default=1000)

# What several processes share: run events, the queue of jobs, the cache. Empty: one process does everything.
REDIS_URL = env.str("REDIS_URL", default=INFERENCE_URL if INFERENCE_URL.startswith("redis") else "")

# Where people find the pages. Links in mails begin with PUBLIC_URL, never with what a request says of itself.
PUBLIC_URL = origin(env.str("PUBLIC_URL", default=""))
HTTPS = env.bool("HTTPS", default=PUBLIC_URL.startswith("https://"))
# Proxies of ours in front, each of which adds to X-Forwarded-For; 0 believes no such header.
TRUSTED_PROXIES = env.int("TRUSTED_PROXIES", default=0)

# Security
SECRET_KEY = env.str("SECRET_KEY", default="") or secret_key(DATA_DIR)
DEBUG = env.bool("DEBUG", default=False)
LOCAL_HOSTS = ["localhost", "127.0.0.1", "[::1]"]
ALLOWED_HOSTS = [*env.list("ALLOWED_HOSTS", default=[*LOCAL_HOSTS, "testserver"]), *host_of(PUBLIC_URL)]
CSRF_TRUSTED_ORIGINS = [*env.list("CSRF_TRUSTED_ORIGINS", default=[]), *filter(None, [PUBLIC_URL])]
SECURE_SSL_REDIRECT = HTTPS
SECURE_REDIRECT_EXEMPT = [r"^livez$", r"^readyz$", r"^metrics$"]  # asked from inside, without TLS
SECURE_HSTS_SECONDS = 365 * 24 * 3600 if HTTPS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = HTTPS
SECURE_HSTS_PRELOAD = HTTPS
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if TRUSTED_PROXIES else None
SESSION_COOKIE_SECURE = HTTPS
CSRF_COOKIE_SECURE = HTTPS
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_AGE = 14 * 24 * 3600
CSRF_COOKIE_SAMESITE = "Lax"
CSRF_FAILURE_VIEW = "webapp.errors.csrf_failure"
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
CSP_REPORT_PATH = "/csp-report"
CONTENT_SECURITY_POLICY = (
    "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "frame-src 'none'; frame-ancestors 'none'; object-src 'none'; base-uri 'none'; form-action 'self'; "
    f"report-uri {CSP_REPORT_PATH}"
)
SECURITY_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "accelerometer=(), camera=(), display-capture=(), geolocation=(), gyroscope=(), "
    "magnetometer=(), microphone=(), midi=(), payment=(), usb=(), clipboard-read=(), clipboard-write=(self), "
    "fullscreen=(self)",
}
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
# Origins of other sites whose scripts may call /v1 and /api with an API key; cookies never travel that way
CORS_ORIGINS = env.list("CORS_ORIGINS", default=[])
# What a Prometheus server sends as bearer token to read /metrics; staff may always look
METRICS_TOKEN = env.str("METRICS_TOKEN", default="")
AUTHENTICATION_BACKENDS = [
    "axes.backends.AxesStandaloneBackend",  # first: it says no to whoever guessed too often
    "allauth.account.auth_backends.AuthenticationBackend",
]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.Argon2PasswordHasher"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
    {
        "NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator",
        "OPTIONS": {"user_attributes": ("email", "name")},
    },
]
AUTH_USER_MODEL = "accounts.User"
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "/"
LOGOUT_REDIRECT_URL = "account_login"

# Accounts
SIGNUP = env.str("SIGNUP", default="closed")
STAFF_TOTP = env.str("STAFF_TOTP", default="optional")
ACCOUNT_ADAPTER = "steering.accounts.adapter.AccountAdapter"
ACCOUNT_USER_MODEL_USERNAME_FIELD = None
ACCOUNT_LOGIN_METHODS = {"email"}
ACCOUNT_SIGNUP_FIELDS = ["email*", "password1*", "password2*"]
ACCOUNT_EMAIL_VERIFICATION = "mandatory"  # what keeps the answers to known and unknown addresses alike
ACCOUNT_PREVENT_ENUMERATION = True
ACCOUNT_CHANGE_EMAIL = True
ACCOUNT_EMAIL_NOTIFICATIONS = True
ACCOUNT_LOGIN_ON_EMAIL_CONFIRMATION = True  # in the browser that signed up, and only there
ACCOUNT_REAUTHENTICATION_REQUIRED = True
ACCOUNT_SESSION_REMEMBER = True
PASSWORD_RESET_TIMEOUT = 24 * 3600
ACCOUNT_DEFAULT_HTTP_PROTOCOL = "https" if HTTPS else "http"
ACCOUNT_FORMS = {
    "login": "steering.accounts.forms.SignInForm",
    "signup": "steering.accounts.forms.SignUpForm",
    "add_email": "steering.accounts.forms.EmailForm",
    "change_password": "steering.accounts.forms.NewPasswordForm",
    "set_password": "steering.accounts.forms.FirstPasswordForm",
    "reset_password": "steering.accounts.forms.ResetForm",
    "reset_password_from_key": "steering.accounts.forms.ResetKeyForm",
    "reauthenticate": "steering.accounts.forms.ReauthenticateForm",
}
ACCOUNT_RATE_LIMITS = {
    "login": "30/m/ip",
    "password": "100/h/key",  # ours: guesses at one account from anywhere; axes counts those from one address
    "login_failed": "10/15m/key",  # codes of the second step
    "reset_password": "20/h/ip,3/15m/key",
    "signup": "20/h/ip",
    "invitation": "60/h/ip",
}
ALLAUTH_TRUSTED_PROXY_COUNT = TRUSTED_PROXIES
MFA_ADAPTER = "steering.accounts.totp.TotpAdapter"
MFA_SUPPORTED_TYPES = ["totp", "recovery_codes"]
MFA_TOTP_ISSUER = "Steerboard"
MFA_ALLOW_UNVERIFIED_EMAIL = True  # nobody signs in unverified; this lets people with TOTP change their e-mail
MFA_FORMS = {
    "activate_totp": "steering.accounts.forms.ActivateTotpForm",
    "authenticate": "steering.accounts.forms.CodeForm",
    "reauthenticate": "steering.accounts.forms.ReauthenticateCodeForm",
}
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_FAILURE_LIMIT = 10
AXES_COOLOFF_TIME = timedelta(minutes=15)
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False
AXES_RESET_ON_SUCCESS = True
AXES_USERNAME_CALLABLE = "steering.accounts.locking.email_of"
AXES_CLIENT_IP_CALLABLE = "steering.accounts.origin.client_ip"
AXES_LOCKOUT_CALLABLE = "steering.accounts.locking.locked"
AXES_SENSITIVE_PARAMETERS = [  # what neither the database nor the log keeps of a failed attempt
    "username", "login", "email", "oldpassword", "password1", "password2", "code", "csrfmiddlewaretoken"
]  # fmt: skip
AXES_DISABLE_ACCESS_LOG = True
AXES_ENABLE_ADMIN = False
AXES_VERBOSE = False

# Mail. Without EMAIL_URL it is written to the server's console.
EMAIL_URL = env.str("EMAIL_URL", default="")
DEFAULT_FROM_EMAIL = env.str(
    "MAIL_FROM", default=f"Steerboard <steerboard@{(host_of(PUBLIC_URL) or ['localhost'])[0]}>"
)
SERVER_EMAIL = DEFAULT_FROM_EMAIL
vars().update(mail(EMAIL_URL))
EMAIL_TIMEOUT = 10

# What a request may carry; larger forms are refused with a sentence, imports travel as files
DATA_UPLOAD_MAX_MEMORY_SIZE = int(2.5 * 1024 * 1024)
FILE_UPLOAD_MAX_MEMORY_SIZE = 2 * 1024 * 1024
MAX_UPLOAD_BYTES = 20 * 1024 * 1024

# How much a person may use unless the administrator sets something else for them; empty: no limit
_PER_MINUTE = env.str("USER_REQUESTS_PER_MINUTE", default="")
_PER_DAY = env.str("USER_TOKENS_PER_DAY", default="")
_AT_ONCE = env.str("USER_CONCURRENT_RUNS", default="")
DEFAULT_LIMITS = {
    "requests_per_minute": optional_count("USER_REQUESTS_PER_MINUTE", _PER_MINUTE),
    "tokens_per_day": optional_count("USER_TOKENS_PER_DAY", _PER_DAY),
    "concurrent_runs": optional_count("USER_CONCURRENT_RUNS", _AT_ONCE),
}

# Applications
INSTALLED_APPS = [
    "webapp",
    "daphne",  # what `manage.py runserver` answers with; `serve` and `web` run uvicorn, see webserver.py
    "unfold",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "channels",
    "allauth.account",
    "allauth.mfa",
    "allauth.usersessions",
    "axes",
    "steering.accounts",
    "steering.audit",
    "steering.access",
    "steering.workers",
    "steering.jobs",
    "steering.datasets",
    "steering.vectors",
    "steering.features",
    "steering.behaviors",
    "steering.presets",
    "steering.playground",
    "steering.experiments",
    "steering.rating",
    "steering.policies",
    "steering.attribution",
    "steering.retrieval",
    "steering.api",
    "steering.compat",
    "steering.administration",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
]
UNFOLD = {
    "SITE_TITLE": "Steerboard",
    "SITE_HEADER": "Steerboard",
    "SITE_SUBHEADER": "Administration",
    "SITE_SYMBOL": "tune",
    "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": "/favicon.ico"}],
    "SHOW_HISTORY": True,
    "DASHBOARD_CALLBACK": "steering.administration.dashboard.dashboard",
    "SIDEBAR": {"navigation": "steering.administration.navigation.navigation"},
    "ACCOUNT": {"navigation": "steering.administration.navigation.account"},
}
MIDDLEWARE = [
    "webapp.middleware.RequestId",
    "webapp.middleware.SecurityHeaders",
    "webapp.cors.CrossOrigin",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "steering.accounts.sessions.SeenSessions",
    "steering.audit.middleware.Acting",
    "webapp.middleware.RequireSignIn",
    "django.contrib.messages.middleware.MessageMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "steering.accounts.totp.StaffTotp",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "webapp.middleware.UploadLimit",
    "webapp.middleware.ExplainErrors",
    "axes.middleware.AxesMiddleware",  # stays last
]
ROOT_URLCONF = "webapp.urls"
ASGI_APPLICATION = "webapp.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "webapp.frame.frame",
            ],
        },
    },
]

# The REST API. Its own classes say the rest; see steering/api/rest/base.py.
REST_FRAMEWORK: dict[str, Any] = {
    "DEFAULT_SCHEMA_CLASS": "steering.api.rest.openapi.Schema",
    "DEFAULT_AUTHENTICATION_CLASSES": [],
    "DEFAULT_PERMISSION_CLASSES": [],
    "URL_FORMAT_OVERRIDE": None,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Steerboard",
    "DESCRIPTION": "Build steering vectors from contrastive data, run a model with them, and look after all of it.",
    "VERSION": "1",
    "OAS_VERSION": "3.1.0",
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "COMPONENT_SPLIT_REQUEST": True,
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_AUTHENTICATION": [],
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "ENABLE_DJANGO_DEPLOY_CHECK": False,
    "POSTPROCESSING_HOOKS": ["steering.api.rest.openapi.tidy"],
    "ENUM_GENERATE_CHOICE_DESCRIPTION": False,
    "SORT_OPERATION_PARAMETERS": False,
}

# Data
DATABASES = {"default": database(env.str("DATABASE_URL", default=""), DATA_DIR)}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
# Layers drop messages silently past 100: they may carry pokes, never tokens.
CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
if REDIS_URL:
    CACHES = {
        "default": {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": REDIS_URL,
            "KEY_PREFIX": "steerboard",
            "OPTIONS": {
                "serializer": "webapp.caching.JsonSerializer",
                "socket_timeout": 3,
                "socket_connect_timeout": 3,
            },
        }
    }

# Static files come straight from the clone: there is no build or collect step.
STATIC_URL = "/static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
WHITENOISE_USE_FINDERS = True
WHITENOISE_MAX_AGE = 0
WHITENOISE_ALLOW_ALL_ORIGINS = False

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_I18N = False
USE_TZ = True
FORMAT_MODULE_PATH = ["webapp.formats"]

# Log lines on the console: text for people, json for programs that collect them
LOG_FORMAT = env.str("LOG_FORMAT", default="text")
LOGGING = logging_settings(LOG_FORMAT)
logging.captureWarnings(True)
