"""What leaves the platform as files: DICOM images, segmentation and structured report, and the record as JSON.

export_dicom     a record and its mask give the DICOM objects
write_dicom      and these a folder
record_json      the record as it is, with a version of its form
"""

from gmmas_portal.exports.dicom_export import DicomExport, export_dicom, write_dicom
from gmmas_portal.exports.record_json import read_record_json, record_json

__all__ = ["DicomExport", "export_dicom", "read_record_json", "record_json", "write_dicom"]
