//! Rows of `lb_names`.

use lb_common::ServiceName;

use crate::model::PortName;

/// The row for a port. The source lets no name through that is too long for it.
pub fn service_name(name: &PortName) -> ServiceName {
    let mut text = [0; ServiceName::LEN];
    for (byte, letter) in text.iter_mut().zip(name.to_string().bytes()) {
        *byte = letter;
    }
    ServiceName { text }
}

/// The text of a row; empty when it is no text.
pub fn name_text(row: &ServiceName) -> &str {
    let text = row.text.split(|byte| *byte == 0).next().unwrap_or_default();
    str::from_utf8(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_comes_back_from_its_row() {
        let longest = format!("{}/{}:{}/sctp", "n".repeat(63), "s".repeat(63), "p".repeat(15));
        for text in [
            "default/web:http/tcp",
            "kube-system/dns:53/udp",
            "core/amf:n2/sctp",
            &longest,
        ] {
            let name = PortName::parse(text).unwrap();
            assert_eq!(name_text(&service_name(&name)), text);
            assert_eq!(PortName::parse(name_text(&service_name(&name))), Some(name));
        }
    }

    #[test]
    fn text_of_another_shape_is_no_name() {
        for text in [
            "",
            "web",
            "default/web",
            "default/web:http",
            "default/web:http/icmp",
        ] {
            assert_eq!(PortName::parse(text), None, "{text}");
        }
    }
}
