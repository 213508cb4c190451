// The API's documentation; requests that are tried here carry the token of this tab's dashboard, if it has one.
SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#api",
  validatorUrl: null,
  requestInterceptor(request) {
    const token = sessionStorage.getItem("ofa-token");
    if (token) request.headers.Authorization = `Bearer ${token}`;
    return request;
  },
});
