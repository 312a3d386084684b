//! Requests in and errors out: every failure is JSON, those that axum finds included.

use axum::{
    Json,
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Path, Query, Request},
    http::{StatusCode, request::Parts},
    response::{IntoResponse, Response},
};
use serde::de::DeserializeOwned;

use super::{
    routes::BODY_LIMIT,
    types::{ErrorBody, ErrorCode, ErrorDocument},
};
use crate::{controller::Refusal, model::Rejection};

/// An answer that says what went wrong.
#[derive(Debug)]
pub(super) struct Failure {
    status: StatusCode,
    code: ErrorCode,
    message: String,
}

impl Failure {
    pub(super) fn new(status: StatusCode, code: ErrorCode, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    fn rejected(status: StatusCode, message: String) -> Self {
        let code = if status == StatusCode::NOT_FOUND { ErrorCode::NotFound } else { ErrorCode::Invalid };
        Self::new(status, code, message)
    }
}

impl From<Rejection> for Failure {
    fn from(rejection: Rejection) -> Self {
        let (status, code) = match rejection {
            Rejection::NotFound(_) => (StatusCode::NOT_FOUND, ErrorCode::NotFound),
            Rejection::Refused(_) => (StatusCode::CONFLICT, ErrorCode::Refused),
            Rejection::Invalid(_) => (StatusCode::BAD_REQUEST, ErrorCode::Invalid),
            Rejection::Config(_) => (StatusCode::BAD_REQUEST, ErrorCode::BadConfig),
            Rejection::Conflict(_) => (StatusCode::CONFLICT, ErrorCode::Conflict),
        };
        Self::new(status, code, rejection.to_string())
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Rejected(rejection) => rejection.into(),
            Refusal::Failed(error) => {
                tracing::error!("a request failed: {error}");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, ErrorCode::Internal, error.to_string())
            }
            Refusal::Stopping => Self::new(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Internal, refusal.to_string()),
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let error = ErrorBody { code: self.code, message: self.message };
        (self.status, Json(ErrorDocument { error })).into_response()
    }
}

/// A JSON body: an object.
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        let body = Bytes::from_request(request, state).await;
        let body = body.map_err(|rejection| match rejection.status() {
            status @ StatusCode::PAYLOAD_TOO_LARGE => {
                Failure::rejected(status, format!("the body is larger than {BODY_LIMIT} bytes"))
            }
            status => Failure::rejected(status, rejection.body_text()),
        })?;
        // serde would take a list for the fields in their order.
        if body.trim_ascii_start().first() == Some(&b'[') {
            let message = "the body is a JSON object: {...}, not a list".into();
            return Err(Failure::rejected(StatusCode::UNPROCESSABLE_ENTITY, message));
        }
        match Json::from_bytes(&body) {
            Ok(Json(value)) => Ok(Self(value)),
            Err(rejection) => Err(Failure::rejected(rejection.status(), reword(&rejection.body_text()))),
        }
    }
}

/// axum's and serde's words for what the sender of a request would call its body.
fn reword(message: &str) -> String {
    let message = message
        .replacen("Failed to parse the request body as JSON: ", "the body is not JSON: ", 1)
        .replacen("Failed to deserialize the JSON body into the target type: ", "the body makes no sense: ", 1)
        .replacen("expected u16", "expected a whole number from 0 to 65535", 1);
    match message.split_once("expected struct ") {
        Some((before, after)) => {
            format!("{before}expected an object{}", after.trim_start_matches(char::is_alphanumeric))
        }
        None => message,
    }
}

/// The named parts of the path.
pub(super) struct Named<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Named<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(value)) => Ok(Self(value)),
            Err(rejection) => Err(Failure::rejected(rejection.status(), rejection.body_text())),
        }
    }
}

/// The query.
pub(super) struct Asked<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Asked<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        match Query::from_request_parts(parts, state).await {
            Ok(Query(value)) => Ok(Self(value)),
            Err(rejection) => Err(Failure::rejected(rejection.status(), rejection.body_text())),
        }
    }
}

/// The query `force=true`: whether to do it even when the service is left with nothing in rotation.
pub(super) struct Forced(pub(super) bool);

impl<S: Send + Sync> FromRequestParts<S> for Forced {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        match parts.uri.query() {
            None | Some("force=false") => Ok(Self(false)),
            Some("force=true") => Ok(Self(true)),
            Some(query) => {
                let message = format!("the query {query:?} is none of force=true and force=false");
                Err(Failure::rejected(StatusCode::BAD_REQUEST, message))
            }
        }
    }
}
