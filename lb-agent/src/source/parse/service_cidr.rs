//! ServiceCIDRs.

use k8s_openapi::api::networking::v1 as api;

use super::{ParseError, Parsed, field};
use crate::model::{Object, ServiceCidr};

/// A ServiceCIDR (KEP-1880).
pub fn service_cidr(object: &api::ServiceCIDR) -> Result<Parsed, ParseError> {
    let name = field::object_name(&object.metadata)?.name.to_string();
    let cidrs = object.spec.iter().flat_map(|spec| spec.cidrs.iter().flatten());
    let prefixes = cidrs
        .enumerate()
        .map(|(place, cidr)| field::prefix(&format!("spec.cidrs[{place}]"), cidr))
        .collect::<Result<_, _>>()?;
    Ok(Parsed {
        object: Some(Object::ServiceCidr(ServiceCidr { name, prefixes })),
        notices: Vec::new(),
        lacking: None,
    })
}
