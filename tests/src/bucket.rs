//! Calls to a bucket.

use candid::Principal;
use openstorage_types::{
    BlobReference,
    bucket::*,
    http::{HttpRequest, HttpResponse},
};

use crate::Setup;

pub fn push_chunk(
    setup: &Setup,
    bucket: Principal,
    caller: Principal,
    args: PushChunkArgs,
) -> Result<PushChunkOk, PushChunkError> {
    setup.call(bucket, caller, "push_chunk", (args,))
}

pub fn ensure_registered(
    setup: &Setup,
    bucket: Principal,
    caller: Principal,
) -> Result<(), EnsureRegisteredError> {
    setup.call(bucket, caller, "ensure_registered", ())
}

pub fn upload_status(
    setup: &Setup,
    bucket: Principal,
    caller: Principal,
    args: UploadArgs,
) -> Result<UploadStatus, UploadError> {
    setup.ask(bucket, caller, "upload_status", (args,))
}

pub fn my_uploads(
    setup: &Setup,
    bucket: Principal,
    caller: Principal,
    args: MyUploadsArgs,
) -> Vec<OpenUpload> {
    setup.ask(bucket, caller, "my_uploads", (args,))
}

pub fn abort_upload(
    setup: &Setup,
    bucket: Principal,
    caller: Principal,
    args: UploadArgs,
) -> Result<(), UploadError> {
    setup.call(bucket, caller, "abort_upload", (args,))
}

pub fn add_blob_reference(
    setup: &Setup,
    bucket: Principal,
    caller: Principal,
    args: AddBlobReferenceArgs,
) -> Result<BlobReference, AddBlobReferenceError> {
    setup.call(bucket, caller, "add_blob_reference", (args,))
}

pub fn delete_blob(
    setup: &Setup,
    bucket: Principal,
    caller: Principal,
    args: RemoveBlobReferenceArgs,
) -> Result<(), RemoveBlobReferenceError> {
    setup.call(bucket, caller, "delete_blob", (args,))
}

pub fn blob_info(
    setup: &Setup,
    bucket: Principal,
    caller: Principal,
    args: UploadArgs,
) -> Result<BlobInfo, UploadError> {
    setup.ask(bucket, caller, "blob_info", (args,))
}

pub fn read_chunk(
    setup: &Setup,
    bucket: Principal,
    caller: Principal,
    args: ReadChunkArgs,
) -> Result<ReadChunkOk, ReadChunkError> {
    setup.ask(bucket, caller, "read_chunk", (args,))
}

pub fn status(setup: &Setup, bucket: Principal) -> BucketStatus {
    setup.ask(bucket, crate::operator(), "status", ())
}

/// A GET of `url` (path and query), as a gateway hands it on.
pub fn get(setup: &Setup, bucket: Principal, url: &str, headers: &[(&str, &str)]) -> HttpResponse {
    request(setup, bucket, "GET", url, headers)
}

pub fn request(
    setup: &Setup,
    bucket: Principal,
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
) -> HttpResponse {
    let request = HttpRequest {
        method: method.into(),
        url: url.into(),
        headers: headers
            .iter()
            .map(|(key, value)| (key.to_string(), value.to_string()))
            .collect(),
        body: Default::default(),
        certificate_version: Some(2),
    };
    setup.ask(bucket, Principal::anonymous(), "http_request", (request,))
}
