//! What `/metrics` tells of the web configuration.

use super::exposition::Exposition;
use crate::web::live::Status;

/// How the web configuration was last read: nothing where there is none.
pub fn web_configuration(page: &mut Exposition, web: Option<Status>) {
    let Some(Status { successful, succeeded, hashes }) = web else { return };
    let name = "segprobe_web_config_last_reload_successful";
    page.family(name, "gauge", "Whether the last reload of the web configuration was successful.");
    page.sample(name, &[], u8::from(successful));
    let name = "segprobe_web_config_last_reload_success_timestamp_seconds";
    page.family(name, "gauge", "Time of the last successful reload of the web configuration.");
    page.sample(name, &[], succeeded.as_second());
    let name = "segprobe_web_password_hashes_total";
    page.family(name, "counter", "Password hashes that were computed: many mean that somebody guesses.");
    page.sample(name, &[], hashes);
}
