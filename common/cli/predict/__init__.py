"""``volseg predict``: what lies before and after the line of MONAI, from DICOM to DICOM SEG."""
