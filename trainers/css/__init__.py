"""Method: collaborative space supervision (CSS, ICCV 2023). Pure functions of tensors."""
