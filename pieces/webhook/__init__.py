"""The piece that starts a flow by an HTTP request.

Decides: what can be set on a webhook trigger, and in which shape the request reaches the flow.
Leaves: receiving, verifying and answering to the webhooks service, which reads the input described here.

What each `auth` checks, over the raw body and in constant time; an endpoint whose secret is missing or empty refuses:

    none      nothing
    header    header `header` (default `x-webhook-secret`) equals `secret`
    basic     basic authentication with `username` and `password`
    hmac      header `header` (default `x-signature`) holds `prefix` + the HMAC of the raw body with `secret`, by
              `algorithm`, written in `encoding`; with `timestamp_header` the signed text is `signed_text` (default
              `{timestamp}.{body}`), and the time may be `tolerance_s` off
    github    hmac with header `x-hub-signature-256`, sha256, hex, prefix `sha256=`; duplicates by `x-github-delivery`;
              `header`, `algorithm`, `encoding` and `prefix` are not looked at

`secret` is one text, or several while keys are rotated: one match is enough.
A request with the same duplicate key as an earlier one starts no second run: `idempotency_header` names a header,
`idempotency_path` a place in the request such as `body.id`; the header counts if both are set and it is there.

The flow sees, as `trigger`:

    method            "POST"
    headers           names in lower case; a name that came several times is joined by ", "
    query             names with values; a name that came several times holds a list
    body              parsed JSON, the fields of a form, or text; null if there is none or it is binary
    raw_body_base64   the body of any other content type; absent otherwise
    files             of a multipart form: one object a file (`FileRef`), which also stands in `body` under its field;
                      empty otherwise

Headers that prove who someone is are masked: `authorization`, `cookie`, the one with the secret or the signature.
"""

from .catch import CatchInput, piece

__all__ = ["CatchInput", "piece"]
