//! The fields of a form that was posted.

use std::convert::Infallible;
use std::fmt;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::stream::once;
use multer::Multipart;

/// One field of a `multipart/form-data` body. Its `Debug` output counts the content and does not show it.
#[derive(Clone)]
pub struct FormField {
    /// The field's name; empty if it has none.
    pub name: String,
    /// The file's name, if the field is a file.
    pub file_name: Option<String>,
    /// The type the client gave the content.
    pub content_type: Option<String>,
    /// The content.
    pub body: Bytes,
}

impl fmt::Debug for FormField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FormField")
            .field("name", &self.name)
            .field("file_name", &self.file_name)
            .field("content_type", &self.content_type)
            .field("body", &self.body.len())
            .finish()
    }
}

/// All fields of `body`, or nothing if it is not a whole form of the type named.
pub(crate) fn fields(content_type: &str, body: &Bytes) -> Option<Vec<FormField>> {
    let boundary = multer::parse_boundary(content_type).ok()?;
    let body = body.clone();
    let form = Multipart::new(once(async move { Ok::<_, Infallible>(body) }), boundary);
    // The body is here already, so that the parser has nothing to wait for.
    read(form).now_or_never()?.ok()
}

async fn read(mut form: Multipart<'_>) -> multer::Result<Vec<FormField>> {
    let mut fields = Vec::new();
    while let Some(field) = form.next_field().await? {
        fields.push(FormField {
            name: field.name().unwrap_or_default().to_owned(),
            file_name: field.file_name().map(str::to_owned),
            content_type: field.content_type().map(ToString::to_string),
            body: field.bytes().await?,
        });
    }
    Ok(fields)
}
